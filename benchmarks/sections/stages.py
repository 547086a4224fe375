"""What is not a decode step: prompts, the fine pass of a window, the codec; on a CPU each beside the torch engine."""

from functools import partial
from typing import Any

import numpy as np

from barkfast.bench.measure import fine_job, in_row, repeat_times, step_job, summarize
from barkfast.bench.roofline import fine_flop, pass_flop
from barkfast.config import Layout, Sampling
from barkfast.jobs import Job
from barkfast.runtime.sampling import Randomness
from barkfast.stages.semantic import semantic_job
from benchmarks import networks
from benchmarks.budget import CPU_DTYPES
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# Positions: those of every semantic prompt, and of coarse ones at full history.
PROMPTS = ((257, "semantic"), (887, "coarse"))
GPU_PROMPTS = ((257, "semantic"), (896, "coarse"), (960, "coarse"))
TORCH_DTYPES = ("float32", "bfloat16")
GPU_CASES = (("large", "bfloat16"), ("large", "int8"), ("small", "bfloat16"))
# Seconds for each, and calls at most.
SECONDS, MOST = 4.0, 30


def run(plan: Plan, record: Recorder, part: str = "") -> None:
    """On a CPU of one size, the torch engine right behind the native one where it has the dtype."""
    if not plan.threads:
        for size, dtype in (("nano", "float32"),) if plan.smoke else GPU_CASES:
            measure(plan, record, size, dtype, "cuda")
        codec_dtype = "float32" if plan.smoke else "bfloat16"
        record.measure("codec", partial(time_codec, plan, plan.size("large"), codec_dtype, "cuda"), dtype=codec_dtype)
        return
    size = plan.size(part.split()[0])
    for dtype in CPU_DTYPES:
        for engine in ("cpu", "torch") if dtype in TORCH_DTYPES else ("cpu",):
            measure(plan, record, size, dtype, engine)
    if size != "large":
        for engine in ("cpu", "torch"):
            record.measure(f"codec {engine}, {plan.clip_s:g} s", partial(time_codec, plan, size, "float32", engine))


def measure(plan: Plan, record: Recorder, size: str, dtype: str, engine: str) -> None:
    """Prompts and the fine pass of one model on one engine."""
    for length, stage in PROMPTS if plan.threads else GPU_PROMPTS[:1] if plan.smoke else GPU_PROMPTS:
        work = partial(time_prompt, plan, size, dtype, stage, length, engine)
        record.measure(f"{size} {dtype} {engine} prompt of {length}", work, dtype=dtype)
    if (engine, dtype) != ("cuda", "int8"):
        # The cuda engine has the fine network in half precision, whatever the others are in.
        work = partial(time_fine, plan, size, dtype, engine)
        record.measure(f"{size} {dtype} {engine} fine pass", work, dtype=dtype)


def time_prompt(plan: Plan, size: str, dtype: str, stage: str, length: int, engine: str) -> dict[str, Any]:
    """From the prompt to the first token drawn."""
    decoder = networks.build_decoder(plan, size, dtype, stage, engine)
    job = prompt_job(networks.checkpoint(plan, size).layout, stage, length)
    row = {"size": size, "dtype": dtype, "engine": engine, "stage": stage, "positions": length}
    return row | timed(plan, lambda: decoder.run([job]), pass_flop(decoder.config, length))


def prompt_job(layout: Layout, stage: str, length: int) -> Job:
    if stage != "semantic":
        return step_job(stage, layout, length, 1, 0)
    random = Randomness(0)
    job = semantic_job(np.arange(40), layout, Sampling(0.7), allow_early_stop=False, random=random)
    return Job(job.prompt, 1, job.slices, job.sampling, n_merged=job.n_merged, random=random)


def time_fine(plan: Plan, size: str, dtype: str, engine: str) -> dict[str, Any]:
    """One window, six codebooks, from host array to host array."""
    refiner, layout = networks.build_refiner(plan, size, dtype, engine), networks.checkpoint(plan, size).layout
    frames = 16 if plan.interpreted else layout.fine.window
    job = fine_job(layout, frames)
    flop = fine_flop(networks.checkpoint(plan, size).stage("fine").config, frames, job.first_codebook)
    row = {"size": size, "dtype": dtype, "engine": engine, "stage": "fine", "frames": frames}
    return row | timed(plan, lambda: refiner.refine(job), flop)


def time_codec(plan: Plan, size: str, dtype: str, engine: str) -> dict[str, Any]:
    """A clip's codes, from host array to host array; on a CPU in float32, whatever the networks are in."""
    codec, layout = networks.build_codec(plan, size, dtype, engine), networks.checkpoint(plan, size).layout
    shape = (layout.fine.n_codebooks, round(plan.clip_s * layout.coarse.rate_hz))
    codes = np.random.default_rng(0).integers(0, layout.codebook_size, shape).astype(np.int32)
    row = {"engine": engine, "stage": "codec", "audio_s": plan.clip_s}
    return row | timed(plan, lambda: codec.decode(codes))


def timed(plan: Plan, work: Any, flop: float | None = None) -> dict[str, Any]:
    times = repeat_times(plan.device, work, 0.0 if plan.smoke else SECONDS, MOST)
    row = {"threads": plan.threads} | in_row("ms", times)
    if flop is None:
        return row
    rate = flop / summarize(times)["median"] / 1e6
    return row | {"gflop": round(flop / 1e9, 1), "gflop_per_s": round(rate, 1)}
