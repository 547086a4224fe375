"""What the engine gives back: a Generation, events, and numbers about all requests so far."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barkfast.audio import write_audio
from barkfast.errors import BarkfastError

# Of the latest requests times are kept, for the percentiles.
KEPT = 512


def real_time_factor(work_s: float, audio_s: float) -> float:
    """Seconds of work per second of audio; of an empty clip infinity, or NaN where nothing is known of any work."""
    if audio_s:
        return work_s / audio_s
    return math.inf if work_s else math.nan


@dataclass(frozen=True)
class Generation:
    """One utterance, with all that led to it.

    Args:
        audio: (samples,) float32, about -1..1; single peaks may lie beyond.
        sample_rate: samples per second.
        semantic: (n,) int64 semantic tokens.
        coarse: (2, frames) int32 codes.
        fine: (8, frames) int32 codes.
        timings: seconds spent in each stage: semantic, coarse, fine, codec. In a batch these are the seconds from
            the start of each of its jobs to its end, in which other requests ran too.
        engines: the engine that ran each stage: torch, cpu or cuda.
        fallbacks: stage -> why the torch engine ran it instead of the engine that "auto" chose.
    """

    audio: np.ndarray
    sample_rate: int
    semantic: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    timings: dict[str, float] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    fallbacks: dict[str, str] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Length of the audio in seconds."""
        return len(self.audio) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio; below 1 is faster than speech. Infinity for a clip without audio."""
        return real_time_factor(sum(self.timings.values()), self.duration)

    @property
    def prompt(self) -> dict[str, np.ndarray]:
        """The tokens under the keys of a history prompt, to be used as a voice."""
        return {"semantic_prompt": self.semantic, "coarse_prompt": self.coarse, "fine_prompt": self.fine}

    def save(self, path: str | os.PathLike[str], subtype: str | None = None) -> None:
        """Write the audio to a file.

        Args:
            path: the file; its suffix names the format: wav, flac, ogg or mp3.
            subtype: how samples are stored, as libsndfile names it ("PCM_16", "FLOAT"); None for the format's default.

        Raises:
            InputError: the format or the subtype is unknown.
            OutputError: the file cannot be written.
        """
        write_audio(path, self.audio, self.sample_rate, subtype=subtype)


@dataclass(frozen=True, slots=True)
class SpokenSentence:
    """A sentence of a stream whose audio has begun.

    Args:
        text: of the sentence.
        start_s: where its audio begins in the stream, in seconds.
    """

    text: str
    start_s: float


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """The next samples of a streamed utterance, (n,) float32, at least one."""

    utterance: Any
    audio: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """An utterance succeeded. All its AudioChunks came before.

    Args:
        result: a Generation, or the array of the last stage where only some stages were asked for.
    """

    utterance: Any
    result: Any


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """An utterance ended with an error; the others go on."""

    utterance: Any
    error: BarkfastError


Event = AudioChunk | Done | Failed


@dataclass(frozen=True)
class Stats:
    """Numbers about an engine.

    Args:
        healthy: whether it works; False before its start and after its end.
        held: requests accepted and not ended, those that wait for a slot included.
        parked: streams among them that wait for their consumers.
        accepted: requests taken in; the sum of `held`, `done`, `failed`, `cancelled` and `late`.
        refused: requests turned away because the queue was full.
        done: accepted ones that ended with a result.
        failed: accepted ones that ended with an error.
        cancelled: accepted ones that their callers ended.
        late: accepted ones that were not done by their deadline.
        audio_s: seconds of audio of the requests that were done.
        busy_s: seconds of work.
        round_s: seconds that the present round of work has lasted; many seconds mean that a device hangs.
        first_chunk_s: (median, 95th percentile) of the seconds from asking to a stream's first chunk, of the latest
            512 that were done; None without any.
        whole_s: the same of the seconds from asking to the end of a request.
    """

    healthy: bool
    held: int
    parked: int
    accepted: int
    refused: int
    done: int
    failed: int
    cancelled: int
    late: int
    audio_s: float
    busy_s: float
    round_s: float
    first_chunk_s: tuple[float, float] | None
    whole_s: tuple[float, float] | None


def percentiles(seconds: Iterable[float]) -> tuple[float, float] | None:
    """Median and 95th percentile: the smallest value that half, and 95 %, do not exceed."""
    ordered = sorted(seconds)
    n = len(ordered)
    return (ordered[(n - 1) // 2], ordered[-(-95 * n // 100) - 1]) if ordered else None


class Counters:
    """The counts behind `Stats`. The worker and the event loop each write their own; any thread may read."""

    def __init__(self) -> None:
        self.accepted = self.refused = self.parked = 0
        self.ends = {"done": 0, "failed": 0, "cancelled": 0, "late": 0}
        self.audio_s = self.busy_s = 0.0
        self._round_began: float | None = None
        self._first_chunk_s: deque[float] = deque(maxlen=KEPT)
        self._whole_s: deque[float] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def begin_round(self) -> None:
        """A round of work begins."""
        self._round_began = time.monotonic()

    def end_round(self) -> None:
        """A round of work ends."""
        if self._round_began is not None:
            self.busy_s += time.monotonic() - self._round_began
        self._round_began = None

    def count_end(self, kind: str) -> None:
        """A request ended: done, failed, cancelled or late."""
        self.ends[kind] += 1

    def count_audio(self, audio_s: float, arrived_s: float, first_chunk_s: float | None) -> None:
        """A request that arrived at `arrived_s` is done; times are of time.monotonic()."""
        with self._lock:
            self.audio_s += audio_s
            self._whole_s.append(time.monotonic() - arrived_s)
            if first_chunk_s is not None:
                self._first_chunk_s.append(first_chunk_s - arrived_s)

    def snapshot(self, healthy: bool) -> Stats:
        """The numbers now."""
        began = self._round_began
        with self._lock:
            first, whole = percentiles(self._first_chunk_s), percentiles(self._whole_s)
        # Ends before beginnings, so that there are never more of them.
        ends = dict(self.ends)
        accepted = self.accepted
        return Stats(
            healthy=healthy,
            held=accepted - sum(ends.values()),
            parked=self.parked,
            accepted=accepted,
            refused=self.refused,
            audio_s=self.audio_s,
            busy_s=self.busy_s,
            round_s=0.0 if began is None else time.monotonic() - began,
            first_chunk_s=first,
            whole_s=whole,
            **ends,
        )
