"""Long texts and dialogues as sound, piece by piece, in constant memory."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np

from barkfast.checks import check_number, check_seed, check_whole
from barkfast.engine.ahead import Ahead
from barkfast.engine.generation import Generation
from barkfast.engine.turns import NOTHING_TO_SAY, Piece, Role, Speaker, Turn, split_text
from barkfast.errors import InputError, VoiceError
from barkfast.longform.joining import Joiner
from barkfast.longform.script import find_speaker, parse_script
from barkfast.longform.sentences import check_language, check_source, language_of
from barkfast.normalize import Markup, check_markup

_PARTS = ("semantic", "coarse", "fine")


def speak_long(
    bark: Speaker,
    text: str | Iterable[str],
    voice: Any = None,
    *,
    chained: bool = False,
    steady: bool = True,
    language: str | None = None,
    markup: Markup = "plain",
    seed: int | None = None,
    trim: bool = True,
    pauses: bool = True,
    at_once: int = 8,
    seconds: float | None = None,
    each_sentence: bool = False,
    retries: int = 2,
    on_piece: Callable[[Piece], None] | None = None,
    **options: Any,
) -> Generator[np.ndarray, None, None]:
    """Speak a text of any length.

    Args:
        bark: the model.
        text: a str, or an iterable of them (an open file, say) that is read as it is needed.
        voice: as in `Bark.generate`.
        chained: every piece goes on from the sound of the one before, instead of from the voice alone. The tone is
            carried on, errors too; and only one piece is spoken at a time.
        steady: without a voice, the first piece's is kept for the rest; else every piece draws its own.
        language: "en", "de" and so on; None for the voice's, or else by the script.
        markup: what the text is written in, "plain" or "markdown", see `barkfast.normalize.normalize`.
        seed: the same seed and `at_once` give the same sound.
        trim: cut silence and noise off the ends of each piece.
        pauses: put silence between pieces, as long as the punctuation asks for; else they overlap a little.
        at_once: pieces that are spoken side by side.
        seconds: how long a piece may be by the estimate of its speaking time; None for 13, or what the model allows.
        each_sentence: a piece for every sentence, instead of as many sentences as fit: the sound comes sooner.
        retries: how often a piece that the model did not finish in time is said again in halves.
        on_piece: called with each `Piece`, in order.
        options: the others of `Bark.request`: temperatures, top_k, top_p, min_eos_p, max_duration_s (of a piece).

    Returns:
        (n,) float32 sounds that make up the whole when put together, as they are ready. Work is done while the next one
        is asked for; `close()` ends it.

    Raises:
        InputError, VoiceError: at once for arguments, on the way for what is found in the text; names the piece.
    """
    check_source(text)
    _check(bark, at_once, seconds, retries, seed, options)
    language = language or language_of(voice)
    check_language(language)
    check_markup(markup)
    role = Role(bark.load_voice(voice, _PARTS), chained, steady)

    def turns() -> Iterator[Turn]:
        for number, chunk in enumerate(split_text(bark, text, language, seconds, each_sentence, markup)):
            yield Turn(chunk, role, number)

    joiner = Joiner(bark.sample_rate, trim=trim, pauses=pauses)
    return _sound(bark, turns(), joiner, on_piece, 1 if chained else at_once, seed, retries, options)


def speak_script(
    bark: Speaker,
    script: Any,
    voices: Mapping[str, Any],
    *,
    chained: bool = False,
    steady: bool = True,
    language: str | None = None,
    markup: Markup = "plain",
    seed: int | None = None,
    trim: bool = True,
    pauses: bool = True,
    at_once: int = 8,
    seconds: float | None = None,
    retries: int = 2,
    on_piece: Callable[[Piece], None] | None = None,
    **options: Any,
) -> Generator[np.ndarray, None, None]:
    """Speak a dialogue, with a voice for each speaker.

    Args:
        script: see `barkfast.longform.parse_script`.
        voices: name of a speaker -> voice as in `Bark.generate`; None for one that is drawn and then kept.
        the others: as in `speak_long`; voices of different languages may meet, and `chained` goes on from what the
            same speaker said before.

    Returns and raises what `speak_long` does. An unknown speaker is an InputError with the number of the line: at once
    if the script is a str or a list, else when the line is read.
    """
    _check(bark, at_once, seconds, retries, seed, options)
    check_language(language)
    check_markup(markup)
    if not isinstance(voices, Mapping) or not voices:
        raise InputError(f"voices is {str(voices)[:80]!r}; expected a dict: the name of each speaker, and a voice")
    if isinstance(script, str | list | tuple):
        for line in parse_script(script):
            find_speaker(line, voices)
    roles = {}
    for name, voice in voices.items():
        try:
            roles[name] = Role(bark.load_voice(voice, _PARTS), chained, steady, name)
        except VoiceError as error:
            raise VoiceError(f"the voice of {name}: {error}") from error

    def turns() -> Iterator[Turn]:
        number = 0
        for line in parse_script(script):
            name = find_speaker(line, voices)
            spoken = language or language_of(voices[name])
            for chunk in split_text(bark, line.text, spoken, seconds, False, markup):
                yield Turn(chunk, roles[name], number)
                number += 1

    joiner = Joiner(bark.sample_rate, trim=trim, pauses=pauses)
    return _sound(bark, turns(), joiner, on_piece, at_once, seed, retries, options)


def _check(
    bark: Speaker, at_once: Any, seconds: float | None, retries: Any, seed: Any, options: Mapping[str, Any]
) -> None:
    check_whole("at_once", at_once, "the number of pieces to speak side by side, from 1", least=1)
    longest = bark.layout.semantic.max_steps / bark.layout.semantic.rate_hz
    if seconds is not None:
        expected = f"up to {longest:.1f}, which is all the model says in one go"
        check_number("seconds", seconds, expected, least=0, most=longest, open_=True)
    check_whole("retries", retries, "0 or more", least=0)
    check_seed(seed)
    # Of any text: options are refused now, not when the first piece is due.
    bark.request("a", None, **options)


def _sound(
    bark: Speaker,
    turns: Iterator[Turn],
    joiner: Joiner,
    on_piece: Callable[[Piece], None] | None,
    at_once: int,
    seed: int | None,
    retries: int,
    options: dict[str, Any],
) -> Generator[np.ndarray, None, None]:
    """Speak turns and join them."""
    # No more slots than there are pieces.
    first = list(islice(turns, at_once))
    silent = True
    for turn, generation in Ahead(bark, chain(first, turns), max(1, len(first)), seed, retries, options):
        samples = np.zeros(0, dtype=np.float32)
        if isinstance(generation, Generation):
            silent = False
            samples = joiner.add(generation.audio, turn.pause)
        else:
            joiner.rest(turn.pause)
        if on_piece is not None:
            spoken = generation.duration if isinstance(generation, Generation) else 0.0
            on_piece(Piece(turn.number, turn.chunk.text, spoken, turn.role.name))
        if len(samples):
            yield samples
    if silent:
        raise InputError(NOTHING_TO_SAY)
    last = joiner.finish()
    if len(last):
        yield last
