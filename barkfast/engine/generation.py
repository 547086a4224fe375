"""What came of a request: the sound, and all that led to it."""

import math
import os
from dataclasses import dataclass, field

import numpy as np

from barkfast.audio import write_audio


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
        timings: seconds spent in each stage: semantic, coarse, fine, codec. In company these are the seconds from
            the beginning of each of its jobs to their end, in which others were served too.
        engines: the engine that ran each stage: torch, cpu or cuda.
        fallbacks: of the stages that the torch engine ran because the one chosen by "auto" could not: why.
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
        """Seconds of work per second of audio; below 1 is faster than speech. See `real_time_factor`."""
        return real_time_factor(sum(self.timings.values()), self.duration)

    @property
    def prompt(self) -> dict[str, np.ndarray]:
        """The tokens under the keys of a history prompt, to be used as a voice."""
        return {"semantic_prompt": self.semantic, "coarse_prompt": self.coarse, "fine_prompt": self.fine}

    def save(self, path: str | os.PathLike[str], subtype: str | None = None) -> None:
        """Write the audio; the suffix names the format (wav, flac, ogg, mp3)."""
        write_audio(path, self.audio, self.sample_rate, subtype=subtype)
