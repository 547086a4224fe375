"""A 10 s clip from text to samples, batch 1, with and without a voice; and the memory it takes."""

import gc
import time
from functools import lru_cache
from typing import Any

import torch

from barkfast.bark import Bark
from barkfast.bench.case import FULL_VOICE, NO_VOICE, Case, Clip, speak
from barkfast.bench.environment import smi_used_bytes
from benchmarks import models
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.rows import clip_row

CASES = (("large", "bfloat16"), ("large", "int8"), ("small", "bfloat16"))
LEAST, MOST = 5, 20


def run(plan: Plan, record: Recorder) -> None:
    """Rows by size, dtype and voice."""
    cases = (("nano", "float32"),) if plan.smoke else CASES
    rows = [(size, dtype, voice) for size, dtype in cases for voice in (False, True)]
    for done, (size, dtype, voice) in enumerate(rows):
        if not voice:
            # The one before must be gone when this one's memory is measured.
            bark_of.cache_clear()
        share = plan.time_left / (len(rows) - done) * 0.75
        work = lambda a=(size, dtype, voice), s=share: time_clip(plan, *a, s)  # noqa: E731
        record.measure(f"{size} {dtype}, {'full voice' if voice else 'no voice'}", work, dtype=dtype)
        if voice and not plan.smoke:
            work = lambda a=(size, dtype): memory(plan, *a)  # noqa: E731
            record.measure(f"{size} {dtype}, memory", work, dtype=dtype)


@lru_cache(maxsize=1)
def bark_of(plan: Plan, size: str, dtype: str) -> tuple[Bark, dict[str, Any]]:
    """A loaded model, and the memory that it takes before it has spoken."""
    if plan.smoke:
        return models.open_bark(plan, size, dtype), {}
    gc.collect()
    torch.cuda.empty_cache()
    before = smi_used_bytes()
    bark = models.open_bark(plan, size, dtype)
    torch.cuda.synchronize()
    loading = models.cuda_memory()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return bark, {"smi_before": before, "loading": loading, "loaded": models.cuda_memory()}


def time_clip(plan: Plan, size: str, dtype: str, with_voice: bool, share: float) -> dict[str, Any]:
    """Whole clips after one that warms up, as many as fit in `share` seconds."""
    begin = time.monotonic()
    bark, _ = bark_of(plan, size, dtype)
    case = Case(voice=FULL_VOICE if with_voice else NO_VOICE, seconds=plan.clip_s)
    if not plan.smoke:
        speak(bark, case, 0)
    clips: list[Clip] = []
    least, most = (1, 1) if plan.smoke else (LEAST, MOST)
    while len(clips) < least or (len(clips) < most and time.monotonic() - begin < share):
        clips.append(speak(bark, case, 1 + len(clips)))
    return {"size": size, "dtype": dtype, "voice": with_voice} | clip_row(clips)


def memory(plan: Plan, size: str, dtype: str) -> dict[str, Any]:
    """Of a model with all stages resident that has spoken both clips."""
    bark, before = bark_of(plan, size, dtype)
    torch.cuda.synchronize()
    used = smi_used_bytes()
    spoken = models.cuda_memory()
    smi_before = before["smi_before"]
    return {
        "size": size,
        "dtype": dtype,
        **{f"loading_{key}": value for key, value in before["loading"].items()},
        **{f"loaded_{key}": value for key, value in before["loaded"].items() if not key.startswith("peak")},
        **spoken,
        "nvidia_smi_used_bytes": used,
        "nvidia_smi_used_before_bytes": smi_before,
    }
