"""Whether streams are made as fast as they play: how many may start, and a warning where one is too slow."""

import logging
import math
from collections.abc import Sequence
from functools import cache

from barkfast.engine.results import AudioChunk, Event
from barkfast.engine.utterance import Utterance

logger = logging.getLogger(__name__)

# Seconds that a consumer may wait before there is a warning; players buffer more than that.
TOLERATED_S = 0.5
# Seconds of audio after which its cost is known, and after which older measurements count half.
KNOWN_S, HALVED_S = 1.0, 30.0
# The share of the time that all streams together may need; the rest is a reserve.
MOST_BUSY = 0.9
# The cost of a step with one more stream, relative to a measured step, while it was not measured itself.
STEP_GROWTH = 1.25
# The weight of the newest step in the average.
NEWEST = 1 / 16


class Pace:
    """Measures the work that low-latency streams need, and predicts whether one more can be made fast enough.

    A stream needs work of its own (prompts, fine windows, audio) and decode steps, which it shares with the others.
    Only work is counted, not the time in which a consumer pauses.

    Args:
        steps_per_s: decode steps for a second of audio.
    """

    def __init__(self, sample_rate: int, steps_per_s: float) -> None:
        self._sample_rate, self._steps_per_s = sample_rate, steps_per_s
        # Stream -> seconds of audio that its consumer has, less the seconds of work since.
        self._left: dict[Utterance, float] = {}
        # Seconds of low-latency streams' own work, and of the audio that it made.
        self._own_s = self._sound_s = 0.0
        # Seconds in which streams waited for their first audio, and how many of them got it.
        self._new_s = self._n_new = 0.0
        # Seconds of audio in a stream's first chunk.
        self._first_s = 0.0
        # Number of streams -> seconds of a step with so many.
        self._step_s: dict[int, float] = {}

    def count_own(self, seconds: float) -> None:
        """Count work for a single stream."""
        self._own_s += seconds

    def count_step(self, n_streams: int, seconds: float) -> None:
        """Count a step for so many streams."""
        before = self._step_s.get(n_streams, seconds)
        self._step_s[n_streams] = before + NEWEST * (seconds - before)

    def count_round(self, events: Sequence[Event], seconds: float, new: Sequence[Utterance] = ()) -> None:
        """Count a round and its events. Every stream waits during every round.

        Args:
            new: the streams that had no audio before it.
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
                # The work for other streams is not counted, so their audio is not either.
                self._sound_s += sound
            if event.utterance in new:
                self._n_new += 1
                self._first_s = sound
            if not event.utterance.ended:
                # After a wait the consumer continues from here.
                self._left[event.utterance] = max(left, 0.0) + sound
        if self._sound_s > HALVED_S:
            self._own_s, self._sound_s = self._own_s / 2, self._sound_s / 2
            self._new_s, self._n_new = self._new_s / 2, self._n_new / 2

    def has_room(self, n_streams: int, n_new: int = 0) -> bool:
        """Whether one more stream can start beside `n_streams`, so that all are made as fast as they play.

        One may always start. A second one waits until the cost of the first is known. `n_new` of them have no audio
        yet: those that play need enough audio until all new ones have started, and so does each new one until the last
        has started.
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
        """Seconds of a step for so many streams: measured, or from the nearest smaller number that was."""
        known = max((n for n in self._step_s if n <= n_streams), default=0)
        if not known:
            return max(self._step_s.values(), default=0.0)
        return self._step_s[known] * (1 + (STEP_GROWTH - 1) * (n_streams - known) / known)

    def forget(self, utterance: Utterance) -> None:
        """A stream has ended."""
        self._left.pop(utterance, None)


@cache
def warn_of_pace() -> None:
    """Warn once that a consumer had to wait within a sentence."""
    logger.warning(
        "a stream is made more slowly than it plays, and its consumer has to wait within a sentence; use int8 or "
        "int4 weights, a smaller model, more threads or fewer streams at once, or mode='exact', which returns a "
        "sentence in one piece, later"
    )
