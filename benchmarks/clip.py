"""A clip from text to samples, stage by stage."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from barkfast.bark import Bark
from barkfast.config import Sampling
from barkfast.runtime.sampling import Randomness
from benchmarks.sources import TEXT
from benchmarks.timing import in_row, summarize

STAGES = ("semantic", "coarse", "fine", "codec")


def speak(bark: Bark, voice: Mapping[str, np.ndarray] | None, *, clip_s: float, seed: int) -> tuple[list[float], float]:
    """Seconds of each stage, and of audio.

    Random weights hardly ever stop by themselves, and here may not, so that all clips are as long.
    """
    random = Randomness(seed)
    marks = [time.perf_counter()]
    semantic = bark.generate_semantic(
        TEXT, voice, Sampling(0.7), max_duration_s=clip_s, allow_early_stop=False, seed=random
    )
    marks.append(time.perf_counter())
    coarse = bark.generate_coarse(semantic, voice, Sampling(0.7), seed=random)
    marks.append(time.perf_counter())
    fine = bark.generate_fine(coarse, voice, Sampling(0.5), seed=random)
    marks.append(time.perf_counter())
    audio = bark.decode(fine)
    marks.append(time.perf_counter())
    if not np.isfinite(audio).all():
        raise RuntimeError("the samples are not finite")
    return [b - a for a, b in zip(marks, marks[1:], strict=False)], len(audio) / bark.sample_rate


def clip_row(clips: list[list[float]], audio_s: float) -> dict[str, Any]:
    """Stages' seconds and real-time factors of clips that are all as long."""
    factors = [sum(clip) / audio_s for clip in clips]
    return {
        "audio_s": audio_s,
        "median_s": {stage: summarize([clip[i] for clip in clips])["median"] for i, stage in enumerate(STAGES)},
    } | in_row("real_time_factor", factors, 5)
