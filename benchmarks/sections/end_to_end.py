"""A 10 s clip from text to samples, batch 1, with the kernels that the run chose; and the memory it takes."""

import gc
import os
import time
from functools import lru_cache
from typing import Any

import torch

from barkfast.bark import Bark
from barkfast.bench.machine import smi_used_bytes
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, Clip, Workload, speak
from barkfast_kernels.variant import VARIANTS
from benchmarks import models
from benchmarks.chosen import VARIABLE, read_chosen
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.rows import clip_row

CASES = (("large", "bfloat16"), ("large", "int8"))
LEAST, MOST = 3, 20
# With this much left clips without a voice are spoken, too.
SPARE_S = 8


def run(plan: Plan, record: Recorder) -> None:
    """Rows by size, dtype and voice: with a voice and the memory it takes; without one if time is left."""
    cases = (("nano", "float32"),) if plan.smoke else CASES
    for done, (size, dtype) in enumerate(cases):
        # The one before must be gone when this one's memory is measured.
        bark_of.cache_clear()
        use_chosen(plan, dtype)
        share = plan.time_left / (len(cases) - done) * 0.6
        measure_clips(plan, record, size, dtype, True, share)
        if not plan.smoke:
            record.measure(f"{size} {dtype}, memory", lambda a=(size, dtype): memory(plan, *a), dtype=dtype)
    for size, dtype in reversed(cases):
        if plan.time_left > SPARE_S and not plan.smoke:
            use_chosen(plan, dtype)
            measure_clips(plan, record, size, dtype, False, 0)


def measure_clips(plan: Plan, record: Recorder, size: str, dtype: str, voice: bool, share: float) -> None:
    """A row, of as many clips as fit in `share` seconds."""
    name = f"{size} {dtype}, {'full voice' if voice else 'no voice'}"
    record.measure(name, lambda: time_clip(plan, size, dtype, voice, share), dtype=dtype)


def use_chosen(plan: Plan, dtype: str) -> None:
    """Run the kernels that this run found best, in networks that are loaded from now on."""
    entry = read_chosen(plan.work, dtype)
    os.environ.pop(VARIABLE, None)
    if entry is not None:
        os.environ[VARIABLE] = entry["label"]


def variant_of(bark: Bark) -> str:
    """The label of the kernels that the coarse network's steps run, or what they are."""
    variant = bark.components.network("coarse").options.variant
    return next((label for label, other in VARIANTS.items() if other == variant), str(variant))


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
    case = Workload(voice=FULL_VOICE if with_voice else NO_VOICE, seconds=plan.clip_s)
    if not plan.smoke:
        speak(bark, case, 0)
    clips: list[Clip] = []
    least, most = (1, 1) if plan.smoke else (LEAST, MOST)
    while len(clips) < least or (len(clips) < most and time.monotonic() - begin < share):
        clips.append(speak(bark, case, 1 + len(clips)))
    return {"size": size, "dtype": dtype, "voice": with_voice, "variant": variant_of(bark)} | clip_row(clips)


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
