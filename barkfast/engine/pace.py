"""Whether streams are made as fast as they are heard: how many may be served, and a warning where one is not."""

import logging
import math
from collections.abc import Sequence
from functools import cache

from barkfast.engine.results import AudioChunk, Event
from barkfast.engine.utterance import Utterance

logger = logging.getLogger(__name__)

# Seconds that a consumer may have waited before there is a warning; players hold more than that ready.
TOLERATED_S = 0.5
# Seconds of sound after which the work for it is known, and after which what was measured before counts half.
KNOWN_S, HALVED_S = 1.0, 30.0
# The share of the time that streams may need together; the rest is for what was not foreseen.
MOST_BUSY = 0.9
# What a step for one more stream costs, over one for those that there are, as long as none was measured.
STEP_GROWTH = 1.25
# The weight of the newest step in the average.
NEWEST = 1 / 16


class Pace:
    """Measures what streams need, and whether they get it.

    A stream needs work of its own (prompts, fine windows, sound) and steps, which it shares with the others. Only work
    counts: a consumer who takes a pause is not waited for here.

    Args:
        steps_per_s: steps of the decoders for a second of sound.
    """

    def __init__(self, sample_rate: int, steps_per_s: float) -> None:
        self._sample_rate, self._steps_per_s = sample_rate, steps_per_s
        # Stream -> seconds of sound that its consumer has, less those that have been worked since.
        self._left: dict[Utterance, float] = {}
        # Seconds of live streams' own work, and of the sound that came of it.
        self._own_s = self._sound_s = 0.0
        # Seconds in which there were streams that had not been heard yet, and how many of those were heard then.
        self._new_s = self._n_new = 0.0
        # Seconds of sound in a stream's first chunk.
        self._first_s = 0.0
        # Number of streams -> seconds of a step with so many.
        self._step_s: dict[int, float] = {}

    def count_own(self, seconds: float) -> None:
        """Take in work for one stream alone."""
        self._own_s += seconds

    def count_step(self, n_streams: int, seconds: float) -> None:
        """Take in a step for so many streams."""
        before = self._step_s.get(n_streams, seconds)
        self._step_s[n_streams] = before + NEWEST * (seconds - before)

    def count_round(self, events: Sequence[Event], seconds: float, new: Sequence[Utterance] = ()) -> None:
        """Take in what came of a round, and how long it took. Everybody waits for everybody's rounds.

        Args:
            new: the streams of which nothing was heard before it.
        """
        if new:
            self._new_s += seconds
        for utterance in self._left:
            self._left[utterance] -= seconds
        for event in events:
            if not isinstance(event, AudioChunk):
                continue
            left, sound = self._left.get(event.utterance, 0.0), len(event.audio) / self._sample_rate
            if left < -TOLERATED_S:
                warn_of_pace()
            if event.utterance.live:
                # Others' work is not counted, so neither is their sound.
                self._sound_s += sound
            if event.utterance in new:
                self._n_new += 1
                self._first_s = sound
            if not event.utterance.ended:
                # The wait is over: the consumer goes on from here.
                self._left[event.utterance] = max(left, 0.0) + sound
        if self._sound_s > HALVED_S:
            self._own_s, self._sound_s = self._own_s / 2, self._sound_s / 2
            self._new_s, self._n_new = self._new_s / 2, self._n_new / 2

    def has_room(self, n_streams: int, n_new: int = 0) -> bool:
        """Whether one more stream can be served beside `n_streams`, and all of them be made as fast as they are heard.

        One always may. A second waits until it is known what the first needs. `n_new` of them are not heard yet: who
        listens has to have sound enough until all new ones have begun, and each of these until the last has.
        """
        if not n_streams:
            return True
        if self._sound_s < KNOWN_S:
            return False
        n = n_streams + 1
        busy = n * self._own_s / self._sound_s + self._steps_per_s * self._expect_step(n)
        left = min((left for utterance, left in self._left.items() if not utterance.parked), default=math.inf)
        if n_new:
            left = min(left, self._first_s)
        each = self._new_s / self._n_new if self._n_new else 0.0
        return busy <= MOST_BUSY and (n_new + 1) * each <= left

    def _expect_step(self, n_streams: int) -> float:
        """Seconds of a step for so many streams: measured, or from the nearest number below that was."""
        known = max((n for n in self._step_s if n <= n_streams), default=0)
        if not known:
            return max(self._step_s.values(), default=0.0)
        return self._step_s[known] * (1 + (STEP_GROWTH - 1) * (n_streams - known) / known)

    def forget(self, utterance: Utterance) -> None:
        """A stream has ended."""
        self._left.pop(utterance, None)


@cache
def warn_of_pace() -> None:
    """Say once that a consumer had to wait within a sentence."""
    logger.warning(
        "a stream is made more slowly than it is heard, and its consumer has to wait within a sentence; use int8 or "
        "int4 weights, a smaller model, more threads or fewer streams at once, or mode='exact', which is heard in one "
        "piece, later"
    )
