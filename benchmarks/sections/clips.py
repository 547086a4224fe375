"""A 10 s clip from text to samples, with and without a voice; and the memory that a process with it takes."""

import gc
import os
import time
from functools import partial
from typing import Any

import psutil
import torch

from barkfast.bark import Bark
from barkfast.bench.machine import read_peaks, smi_used_bytes
from barkfast.bench.measure import in_row, summarize
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, STAGES, Clip, Workload, speak
from barkfast_kernels.variant import VARIANTS
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.tuned import VARIABLE, find_chosen

GPU_CASES = (("large", "bfloat16"), ("large", "int8"))
# Clips with a voice on a GPU; on a CPU one, more of what targets are set for.
LEAST, MOST = 3, 20
OFTEN, CPU_MOST = "small int8", 3
WARM_UP_S = 0.5
# With this much left of a GPU's time clips without a voice are spoken, too.
SPARE_S = 8


def run(plan: Plan, record: Recorder, part: str = "") -> None:
    """On a CPU one size and dtype, as the part names it; on a GPU both dtypes of the large model."""
    if plan.threads:
        name, dtype = part.split()[:2]
        measure(plan, record, plan.size(name), dtype, plan.time_left / 2.5, CPU_MOST if part.startswith(OFTEN) else 1)
        return
    cases = (("nano", "float32"),) if plan.smoke else GPU_CASES
    for done, (name, dtype) in enumerate(cases):
        chosen = find_chosen(plan, dtype)
        os.environ.pop(VARIABLE, None)
        if chosen is not None:
            # Networks that are loaded from now on run the kernels that this run found best.
            os.environ[VARIABLE] = chosen.label
        measure(plan, record, name, dtype, 0.6 * plan.time_left / (len(cases) - done), MOST)


def measure(plan: Plan, record: Recorder, size: str, dtype: str, seconds: float, most: int) -> None:
    """With a voice first: it is the harder case, and targets are set for it; without one if time is left."""
    gc.collect()
    before = {"before_bytes": read_peaks()["rss_bytes"]} if plan.threads else {}
    torch.cuda.empty_cache()
    bark = networks.open_bark(plan, size, dtype)
    loaded = memory_loaded(plan)
    end = time.monotonic() + seconds
    if not plan.interpreted:
        speak(bark, Workload(seconds=plan.clip_s if not plan.threads else min(WARM_UP_S, plan.clip_s)), 0)
    for voice in (True, False):
        if not voice:
            name = f"{size} {dtype}, memory{plan.of_threads()}"
            if not plan.interpreted:
                work = partial(memory, plan, {"size": size, "dtype": dtype, "threads": plan.threads} | before | loaded)
                record.measure(name, work, dtype=dtype)
            if plan.interpreted or (not plan.threads and plan.time_left < SPARE_S):
                return
        name = f"{size} {dtype}, {'full voice' if voice else 'no voice'}{plan.of_threads()}"
        row = {"size": size, "dtype": dtype, "voice": voice, "threads": plan.threads} | kernels_of(plan, bark)
        record.measure(name, partial(time_clips, plan, bark, row, end, most), dtype=dtype)


def kernels_of(plan: Plan, bark: Bark) -> dict[str, str]:
    """On a GPU the label of the kernels that the coarse network's steps run, or what they are."""
    if plan.threads:
        return {}
    variant = bark.components.network("coarse").options.variant
    return {"variant": next((label for label, other in VARIANTS.items() if other == variant), str(variant))}


def time_clips(plan: Plan, bark: Bark, row: dict[str, Any], end: float, most: int) -> dict[str, Any]:
    workload = Workload(voice=FULL_VOICE if row["voice"] else NO_VOICE, seconds=plan.clip_s)
    least, most = (1, 1) if plan.smoke else (1 if plan.threads else LEAST, most)
    clips: list[Clip] = []
    while len(clips) < least or (
        len(clips) < most and time.monotonic() + clips[-1].real_time_factor * clips[-1].audio_s < end
    ):
        clips.append(speak(bark, workload, 1 + len(clips)))
    medians = {stage: summarize([clip.seconds[stage] for clip in clips])["median"] for stage in STAGES}
    factors = in_row("real_time_factor", [clip.real_time_factor for clip in clips], 5)
    return row | {"audio_s": clips[-1].audio_s, "median_s": medians} | factors


# --- memory, in bytes


def memory_loaded(plan: Plan) -> dict[str, Any]:
    """With all stages loaded; on a GPU its peaks are counted anew from here on."""
    if plan.threads:
        return {"loaded_bytes": read_peaks()["rss_bytes"]}
    if plan.smoke:
        return {}
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return {"loaded_reserved_bytes": torch.cuda.memory_reserved()}


def memory(plan: Plan, row: dict[str, Any]) -> dict[str, Any]:
    """Of a process with all stages resident that has spoken; mapped weights can be shared and given back."""
    if plan.threads:
        now = psutil.Process().memory_info()
        shared = getattr(now, "shared", 0)
        sizes = {"peak_bytes": read_peaks()["rss_bytes"], "anonymous_bytes": now.rss - shared, "file_bytes": shared}
        return row | sizes
    torch.cuda.synchronize()
    return row | {
        "nvidia_smi_used_bytes": smi_used_bytes(),
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
