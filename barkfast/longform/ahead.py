"""Speaks chunks side by side, and hands them out in their order."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from barkfast.config import Layout
from barkfast.engine.events import Done, Failed
from barkfast.engine.generation import Generation
from barkfast.errors import BarkfastError, InputError, VoiceError
from barkfast.longform.chunks import Chunk, split_long
from barkfast.parts import Parts
from barkfast.voices import check_voice

logger = logging.getLogger(__name__)


class Speaker(Protocol):
    """What long texts take of a `Bark`."""

    parts: Parts

    @property
    def layout(self) -> Layout: ...

    @property
    def sample_rate(self) -> int: ...

    def load_voice(self, voice: Any, parts: tuple[str, ...]) -> Mapping[str, np.ndarray] | None: ...

    def request(self, *args: Any, **options: Any) -> Any: ...

    def scheduler(self, n_slots: int) -> Any: ...


@dataclass(eq=False)
class Role:
    """A voice through a text.

    Args:
        voice: the prompt that the next chunk begins with; None for a voice that the model draws.
        chained: every chunk begins with the one before it.
        steady: without a voice, the one drawn for the first chunk stays.
        name: of the speaker, in a script.
        under_way: chunks that are being said.
    """

    voice: Mapping[str, np.ndarray] | None
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
    """

    chunk: Chunk
    role: Role
    number: int
    attempt: int = 0
    half: int = 0

    def seed(self, seed: int | None) -> int | None:
        """The seed of this turn: the whole's own for the first chunk, and another for every other."""
        if seed is None:
            return None
        return (int(seed) + self.number + ((2 * self.attempt + self.half) << 40)) % 2**63


@dataclass(eq=False)
class _Place:
    """A turn in the queue, and the utterance it became once it was asked for."""

    turn: Turn
    utterance: Any = None


class Ahead:
    """Says turns side by side.

    Args:
        turns: in order; only so many are taken as are being said.
        at_once: side by side in the networks; as many again may wait for their next stage.
        retries: how often a chunk that ran into the model's limit of time is said again in two halves, or one that
            came to nothing with another seed.
        options: of `Bark.request`.
    """

    def __init__(
        self,
        bark: Speaker,
        turns: Iterator[Turn],
        at_once: int,
        seed: int | None,
        retries: int,
        options: dict[str, Any],
    ) -> None:
        self._bark, self._turns, self._at_once, self._seed = bark, turns, at_once, seed
        self._retries, self._options = retries, options
        # Taken, but its voice is not known yet.
        self._next: Turn | None = None
        self._queue: deque[_Place] = deque()
        self._ended: dict[Any, Generation | BarkfastError] = {}

    def __iter__(self) -> Iterator[tuple[Turn, Generation | None]]:
        """Every turn with what was said; None for a chunk in which there is nothing to pronounce.

        Errors: of the first turn that fails, named by its piece, once all before it were handed out.
        """
        with self._bark.scheduler(self._at_once) as scheduler:
            try:
                yield from self._speak(scheduler)
            finally:
                for place in self._queue:
                    if place.utterance is not None:
                        scheduler.cancel(place.utterance)

    def _speak(self, scheduler: Any) -> Iterator[tuple[Turn, Generation | None]]:
        while self._fill(scheduler):
            place = self._queue[0]
            turn = place.turn
            if not turn.chunk.speakable:
                self._queue.popleft()
                yield turn, None
            elif place.utterance is None:
                self._ask(scheduler, place)
            elif place.utterance not in self._ended:
                self._round(scheduler)
            else:
                self._queue.popleft()
                turn.role.under_way -= 1
                result = self._ended.pop(place.utterance)
                if again := self._again(turn, result):
                    self._queue.extendleft([self._enter(one) for one in reversed(again)])
                elif isinstance(result, BarkfastError):
                    raise _named(turn, result)
                else:
                    turn.role.learn(result, self._bark.layout)
                    yield turn, result

    def _fill(self, scheduler: Any) -> bool:
        """Have as much under way as may be; False when all is said."""
        for place in self._queue:
            # Said again: at once, unless its voice is still being said.
            if place.utterance is None and place.turn.chunk.speakable and not place.turn.role.learning:
                self._ask(scheduler, place)
        while len(self._queue) < 2 * self._at_once:
            if self._next is None:
                self._next = next(self._turns, None)
            if self._next is None or not self._next.role.ready:
                break
            place = self._enter(self._next)
            self._queue.append(place)
            self._next = None
            if place.turn.chunk.speakable:
                self._ask(scheduler, place)
        return bool(self._queue)

    @staticmethod
    def _enter(turn: Turn) -> _Place:
        turn.role.under_way += turn.chunk.speakable
        return _Place(turn)

    def _ask(self, scheduler: Any, place: _Place) -> None:
        turn = place.turn
        options = {"overflow": "error", **self._options}
        try:
            request = self._bark.request(turn.chunk.text, turn.role.voice, seed=turn.seed(self._seed), **options)
            place.utterance = scheduler.add(request)
        except BarkfastError as error:
            raise _named(turn, error) from error

    def _round(self, scheduler: Any) -> None:
        for event in scheduler.round():
            if isinstance(event, Done):
                self._ended[event.utterance] = event.generation
            elif isinstance(event, Failed):
                self._ended[event.utterance] = event.error

    def _again(self, turn: Turn, result: Generation | BarkfastError) -> list[Turn]:
        """What to say instead of a turn that came to nothing or was cut off; nothing where that cannot be helped."""
        attempt = turn.attempt + 1
        if isinstance(result, BarkfastError):
            # The end token was the first one drawn, say: another draw does better. A network that fails does not.
            once_more = isinstance(result, InputError) and attempt <= self._retries
            return [replace(turn, attempt=attempt)] if once_more else []
        if self._options.get("max_duration_s") is not None:
            return []
        if len(result.semantic) < self._bark.layout.semantic.max_steps:
            return []
        chunk = turn.chunk
        parts = split_long(chunk.text, lambda text: 2 * len(text) / (len(chunk.text) + 1), chunk.ending)
        if attempt > self._retries or len(parts) < 2:
            logger.warning(
                "piece %d ran into the model's limit of time and may be cut off: %r; try fewer seconds a piece",
                turn.number + 1,
                chunk.text[:60],
            )
            return []
        logger.info("piece %d took longer than estimated: said again in %d parts", turn.number + 1, len(parts))
        return [
            replace(turn, chunk=part, attempt=attempt, half=2 * turn.half + index) for index, part in enumerate(parts)
        ]


def _named(turn: Turn, error: BarkfastError) -> BarkfastError:
    """The same error, that says which piece of the text it is about."""
    return type(error)(f"piece {turn.number + 1} of the text ({turn.chunk.text[:60]!r}): {error}")
