"""Whether streams are made as fast as they are heard, and a warning where they are not."""

import logging
from collections.abc import Sequence
from functools import cache

from barkfast.engine.events import Chunk, Event
from barkfast.engine.task import Task

logger = logging.getLogger(__name__)

# Seconds that a consumer may have waited before there is a warning; players hold more than that ready.
TOLERATED_S = 0.5


class Pace:
    """Counts, for each stream that is heard, the seconds of work since its first sound and the sound that came.

    Only work counts: a reader who takes a pause is not waited for here.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        # Stream -> seconds of sound that its consumer has, less those that have been worked since.
        self._left: dict[Task, float] = {}

    def note(self, events: Sequence[Event], seconds: float) -> None:
        """Take in a round: what came of it, and how long it took. Everybody waits for everybody's rounds."""
        for task in self._left:
            self._left[task] -= seconds
        for event in events:
            if not isinstance(event, Chunk):
                continue
            left = self._left.get(event.task, 0.0)
            if left < -TOLERATED_S:
                warn_of_pace()
            # The wait is over: the consumer goes on from here.
            self._left[event.task] = max(left, 0.0) + len(event.audio) / self._sample_rate

    def forget(self, task: Task) -> None:
        """A stream has ended."""
        self._left.pop(task, None)


@cache
def warn_of_pace() -> None:
    """Say once that a consumer had to wait within a sentence."""
    logger.warning(
        "a stream is made more slowly than it is heard, and its consumer has to wait within a sentence; use int8 or "
        "int4 weights, a smaller model, more threads or fewer streams at once, or mode='exact', which is heard in one "
        "piece, later"
    )
