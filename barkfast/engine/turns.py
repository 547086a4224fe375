"""What is said of a text, one utterance after the other, by whom, and with which random numbers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

import numpy as np

from barkfast.checks import check_seed
from barkfast.components import Components
from barkfast.config import Layout
from barkfast.engine.generation import Generation
from barkfast.engine.request import Request
from barkfast.errors import BarkfastError, InputError, VoiceError
from barkfast.longform.chunks import SECONDS, Chunk, split_chunks
from barkfast.longform.joining import pause_after
from barkfast.longform.sentences import check_language, check_source
from barkfast.normalize import Markup
from barkfast.text import check_text
from barkfast.voices import check_voice

# The share of the model's longest utterance that it speaks well: 13 of Suno's 15.4 seconds.
_WELL = SECONDS / (768 / 49.9)
NOTHING_TO_SAY = "the text has nothing to pronounce in it; expected at least one letter or digit"


class Speaker(Protocol):
    """What engines and long texts take of a `Bark`."""

    components: Components

    @property
    def layout(self) -> Layout: ...

    @property
    def sample_rate(self) -> int: ...

    def load_voice(self, voice: Any, parts: tuple[str, ...]) -> Mapping[str, np.ndarray] | None: ...

    def request(self, *args: Any, **options: Any) -> Request: ...

    def scheduler(self, n_slots: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the text that has been said.

    Args:
        number: from 0. Parts of a piece that had to be said in halves have the same.
        text: what was said.
        seconds: of its own sound, before it was trimmed and joined; 0 where there was nothing to pronounce.
        speaker: in a script.
    """

    number: int
    text: str
    seconds: float
    speaker: str | None = None


@dataclass(eq=False)
class Role:
    """A voice through a text.

    Args:
        voice: what the next chunk begins with, as `Bark.request` takes it; None for a voice that the model draws.
        chained: every chunk begins with the one before it.
        steady: without a voice, the one drawn for the first chunk stays.
        name: of the speaker, in a script.
        under_way: chunks that are being said.
    """

    voice: Any
    chained: bool = False
    steady: bool = True
    name: str | None = None
    under_way: int = 0

    @property
    def learning(self) -> bool:
        """Whether the next chunk's voice follows from what is being said."""
        return self.chained or (self.steady and self.voice is None)

    @property
    def ready(self) -> bool:
        """Whether the voice of the next chunk is known."""
        return not (self.learning and self.under_way)

    def learn(self, generation: Generation, layout: Layout) -> None:
        """Take over what was said as the voice, if it is fit for that."""
        if not self.learning:
            return
        try:
            check_voice(generation.prompt, layout)
        except VoiceError:
            # A word or two: too short for both rates to agree. The voice before it stays.
            return
        self.voice = generation.prompt


@dataclass(frozen=True, eq=False)
class Turn:
    """A chunk for a role to say.

    Args:
        number: of the chunk in the whole, from 0; its random numbers follow from it.
        attempt: how often it, or what it was part of, was said before in vain.
        half: which part of that it is.
        rest: seconds of silence that what follows it asks for, having nothing to pronounce.
        last: whether nothing is said after it; False also where that is not known.
    """

    chunk: Chunk
    role: Role
    number: int
    attempt: int = 0
    half: int = 0
    rest: float = 0.0
    last: bool = False

    @property
    def pause(self) -> float:
        """Seconds of silence after it."""
        return max(pause_after(self.chunk), self.rest)

    def seed(self, seed: int | None) -> int | None:
        """The seed of this turn: the whole's own for the first chunk, and another for every other."""
        if seed is None or not (self.number or self.attempt):
            return seed
        return (int(seed) + self.number + ((2 * self.attempt + self.half) << 40)) % 2**63

    def request(self, bark: Speaker, seed: int | None, options: Mapping[str, Any]) -> Request:
        """What is asked of the engine for it. Errors: those of `Bark.request`."""
        options = {"overflow": "error", **options}
        return bark.request(self.chunk.text, self.role.voice, seed=self.seed(seed), **options)

    def once_more(self, error: BarkfastError, retries: int) -> "Turn | None":
        """The turn with other random numbers, where that may help: of `error`, and so many attempts.

        The end token was the first one drawn, say. A network that fails does not do better.
        """
        helps = isinstance(error, InputError) and self.attempt < retries
        return replace(self, attempt=self.attempt + 1) if helps else None

    def blame(self, error: BarkfastError, *, first_too: bool = True) -> NoReturn:
        """Raise the error as one that says which piece of the text it is about; of the first only if that is wanted."""
        if not (self.number or first_too):
            raise error
        raise type(error)(f"piece {self.number + 1} of the text ({self.chunk.text[:60]!r}): {error}") from error


def split_text(
    bark: Speaker,
    text: str | Iterable[str],
    language: str | None,
    seconds: float | None,
    each_sentence: bool,
    markup: Markup = "plain",
) -> Iterator[Chunk]:
    """The text in chunks that fit the model."""
    semantic = bark.layout.semantic
    tokenizer = bark.components.load("text")["tokenizer"]
    chunks = split_chunks(
        text,
        language,
        seconds=seconds or _WELL * semantic.max_steps / semantic.rate_hz,
        count_tokens=lambda part: len(tokenizer.encode(part)),
        max_tokens=semantic.n_slots,
        each_sentence=each_sentence,
        markup=markup,
    )
    for chunk in chunks:
        yield replace(chunk, silent=tokenizer.leaves_out(chunk.text))


def check_sentences(text: Any, language: str | None, seed: Any) -> None:
    """Raise InputError for what cannot be spoken sentence by sentence, as far as that costs nothing to see."""
    if isinstance(text, str):
        check_text(text)
        if not Chunk(text).speakable:
            raise InputError(f"text is {text[:80]!r}: {NOTHING_TO_SAY}")
    else:
        check_source(text)
    check_language(language)
    check_seed(seed)


def sentence_turns(
    bark: Speaker, text: str | Iterable[str], role: Role, language: str | None, markup: Markup = "plain"
) -> Iterator[Turn]:
    """A turn for each sentence with something to pronounce, or part of a sentence that is too long for one.

    Each is looked at when the one before is asked for, so that it is known which is the last.

    Errors: InputError on the way for what is no text, and where there is nothing to pronounce.
    """
    held: Turn | None = None
    for number, chunk in enumerate(split_text(bark, text, language, None, True, markup)):
        if chunk.speakable:
            if held is not None:
                yield held
            held = Turn(chunk, role, number)
        elif held is not None:
            held = replace(held, rest=max(held.rest, pause_after(chunk)))
    if held is None:
        raise InputError(NOTHING_TO_SAY)
    yield replace(held, last=True)
