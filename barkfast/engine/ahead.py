"""Speaks turns side by side, in the caller's thread, and hands them out in their order."""

import logging
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from barkfast.engine.events import Chunk, Done, Failed
from barkfast.engine.generation import Generation
from barkfast.engine.turns import Speaker, Turn
from barkfast.errors import BarkfastError
from barkfast.longform.chunks import split_long

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Place:
    """A turn in the queue, and the utterance it became once it was asked for.

    Args:
        chunks: of its sound, not handed out yet; none but where turns are streamed.
        heard: whether some were handed out.
        result: its end.
    """

    turn: Turn
    utterance: Any = None
    chunks: deque[np.ndarray] = field(default_factory=deque)
    heard: bool = False
    result: Generation | BarkfastError | None = None


class Ahead:
    """Says turns side by side.

    Args:
        turns: in order; only so many are taken as are being said.
        at_once: side by side in the networks; as many again may wait for their next stage.
        retries: how often a chunk that ran into the model's limit of time is said again in two halves, or one that
            came to nothing with another seed.
        options: of `Bark.request`.
        live: hand out the sound of each turn as it comes. Then `at_once` are under way at most, only one until it is
            heard, and what was heard is not said again.
    """

    def __init__(
        self,
        bark: Speaker,
        turns: Iterator[Turn],
        at_once: int,
        seed: int | None,
        retries: int,
        options: dict[str, Any],
        live: bool = False,
    ) -> None:
        self._bark, self._turns, self._at_once, self._seed = bark, turns, at_once, seed
        self._retries, self._options, self._live = retries, options, live
        # Taken, but its voice is not known yet.
        self._next: Turn | None = None
        self._queue: deque[_Place] = deque()
        self._asked: dict[Any, _Place] = {}
        # Whether anything was asked for.
        self._begun = False

    def __iter__(self) -> Generator[tuple[Turn, np.ndarray | Generation | None], None, None]:
        """Every turn with what was said; None for a chunk in which there is nothing to pronounce.

        Of a stream the turn with each (n,) chunk of its sound before.

        Errors: of the first turn that fails, named by its piece, once all before it were handed out.
        """
        with self._bark.scheduler(self._at_once) as scheduler:
            try:
                yield from self._speak(scheduler)
            finally:
                for place in self._queue:
                    if place.utterance is not None:
                        scheduler.cancel(place.utterance)

    def _speak(self, scheduler: Any) -> Iterator[tuple[Turn, np.ndarray | Generation | None]]:
        while self._fill(scheduler):
            place = self._queue[0]
            turn, result = place.turn, place.result
            if place.utterance is not None:
                place.utterance.follows = False
            if not turn.chunk.speakable:
                self._queue.popleft()
                yield turn, None
            elif place.utterance is None:
                self._ask(scheduler, place)
            elif place.chunks:
                place.heard = True
                yield turn, place.chunks.popleft()
            elif result is None:
                self._round(scheduler)
            else:
                self._queue.popleft()
                turn.role.under_way -= 1
                if again := self._again(place, result):
                    self._queue.extendleft([self._enter(one) for one in reversed(again)])
                elif isinstance(result, BarkfastError):
                    self._blame(turn, result)
                else:
                    turn.role.learn(result, self._bark.layout)
                    yield turn, result

    def _fill(self, scheduler: Any) -> bool:
        """Have as much under way as may be; False when all is said."""
        for place in self._queue:
            # Said again: at once, unless its voice is still being said.
            if place.utterance is None and place.turn.chunk.speakable and not place.turn.role.learning:
                self._ask(scheduler, place)
        while len(self._queue) < self._most:
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

    @property
    def _most(self) -> int:
        """Turns that may be in the queue."""
        if not self._live:
            return 2 * self._at_once
        # What nobody waits for yet must not delay the first sound.
        return self._at_once if self._queue and self._queue[0].heard else 1

    @staticmethod
    def _enter(turn: Turn) -> _Place:
        turn.role.under_way += turn.chunk.speakable
        return _Place(turn)

    def _ask(self, scheduler: Any, place: _Place) -> None:
        try:
            place.utterance = scheduler.add(place.turn.request(self._bark, self._seed, self._options))
        except BarkfastError as error:
            self._blame(place.turn, error)
        place.utterance.follows = self._live and place is not self._queue[0]
        place.utterance.continues, self._begun = self._begun, True
        self._asked[place.utterance] = place

    def _round(self, scheduler: Any) -> None:
        for event in scheduler.round():
            if isinstance(event, Chunk):
                self._asked[event.task].chunks.append(event.audio)
            elif isinstance(event, Done):
                self._asked.pop(event.task).result = event.result
            elif isinstance(event, Failed):
                self._asked.pop(event.task).result = event.error

    def _again(self, place: _Place, result: Generation | BarkfastError) -> list[Turn]:
        """What to say instead of a turn that came to nothing or was cut off; nothing where that cannot be helped."""
        turn = place.turn
        if isinstance(result, BarkfastError):
            again = None if place.heard else turn.once_more(result, self._retries)
            return [] if again is None else [again]
        if self._options.get("max_duration_s") is not None:
            return []
        if len(result.semantic) < self._bark.layout.semantic.max_steps:
            return []
        chunk, attempt = turn.chunk, turn.attempt + 1
        parts = split_long(chunk.text, lambda text: 2 * len(text) / (len(chunk.text) + 1), chunk.ending)
        if attempt > self._retries or len(parts) < 2 or place.heard:
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

    def _blame(self, turn: Turn, error: BarkfastError) -> NoReturn:
        """Raise the error with the name of its piece; a stream's first sentence may be its only one, and has none."""
        turn.blame(error, first_too=not self._live)
