"""Texts of any length as sound that is heard while it is made, in the caller's thread."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import Any

import numpy as np

from barkfast.engine.ahead import Ahead
from barkfast.engine.generation import Generation
from barkfast.engine.turns import Piece, Role, Speaker, Turn, check_sentences, sentence_turns
from barkfast.errors import InputError
from barkfast.longform.joining import LiveJoiner
from barkfast.longform.sentences import language_of
from barkfast.normalize import Markup, check_markup

MODES = ("exact", "low_latency")
# Sentences under way: the one that is heard, and the next.
AT_ONCE = 2
# How often a sentence of which nothing was heard is drawn again where it came to nothing, as in long texts.
RETRIES = 2


def check_mode(mode: Any) -> None:
    """Raise InputError for what is no way to stream."""
    if mode not in MODES:
        raise InputError(f"mode is {mode!r}; expected one of {', '.join(map(repr, MODES))}")


def speak_live(
    bark: Speaker,
    text: str | Iterable[str],
    voice: Any = None,
    *,
    mode: str = "exact",
    chained: bool = False,
    language: str | None = None,
    markup: Markup = "plain",
    seed: int | None = None,
    on_piece: Callable[[Piece], None] | None = None,
    **options: Any,
) -> Generator[np.ndarray, None, None]:
    """Speak a text of any length sentence by sentence, and hand out its sound while it is made.

    Args:
        bark: the model.
        text: a str, or an iterable of them (an open file, say) that is read as it is needed.
        voice: as in `Bark.generate`; without one, the first sentence's is kept for the rest.
        mode: "exact" or "low_latency", see docs/streaming.md.
        chained: every sentence goes on from the sound of the one before, instead of from the voice alone.
        language: "en", "de" and so on; None for the voice's, or else by the script.
        markup: what the text is written in, "plain" or "markdown", see `barkfast.normalize.normalize`.
        seed: of the first sentence; the others count on from it.
        on_piece: called with each `Piece`, in order, once all of it was handed out.
        options: the others of `Bark.request`: temperatures, top_k, top_p, min_eos_p, max_duration_s (of a sentence).

    Returns:
        (n,) float32 samples as they come. Work is done while the next ones are asked for, and not between: for the
        sentence that is heard, and, once something of it was heard, for the next. `close()` ends it.

    Raises:
        InputError, VoiceError: at once for arguments and for a str with nothing to pronounce; what becomes of a later
            sentence where its sound would have come, and named by it.
    """
    check_mode(mode)
    check_markup(markup)
    check_sentences(text, language or language_of(voice), seed)
    options = {"stream": mode, **options}
    # Of any text: options are refused now, not when the first sentence is due.
    bark.request("a", None, **options)
    role = Role(bark.load_voice(voice, ("semantic", "coarse", "fine")), chained)
    turns = sentence_turns(bark, text, role, language or language_of(voice), markup)
    return _sound(bark, turns, seed, on_piece, options)


def _sound(
    bark: Speaker,
    turns: Iterator[Turn],
    seed: int | None,
    on_piece: Callable[[Piece], None] | None,
    options: dict[str, Any],
) -> Generator[np.ndarray, None, None]:
    # No more slots than there are sentences.
    first = list(islice(turns, AT_ONCE))
    joiner = LiveJoiner(bark.sample_rate)
    ahead = Ahead(bark, chain(first, turns), len(first), seed, RETRIES, options, live=True)
    with closing(iter(ahead)) as saying:
        for turn, said in saying:
            if isinstance(said, Generation):
                if on_piece is not None:
                    on_piece(Piece(turn.number, turn.chunk.text, said.duration))
                samples = joiner.finish() if turn.last else joiner.next(turn.pause)
            else:
                assert said is not None
                samples = joiner.push(said, turn.last)
            if len(samples):
                yield samples
