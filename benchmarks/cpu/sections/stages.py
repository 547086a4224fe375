"""What is not a decode step: prompts, the fine pass of a window, the codec; each beside the torch engine."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from barkfast.bench.measure import in_row, summarize, wall_times
from barkfast.bench.roofline import fine_flop, pass_flop
from barkfast.config import Layout, Sampling
from barkfast.jobs import FineJob, Job
from barkfast.runtime.decoder import Refiner
from barkfast.runtime.sampling import Randomness
from barkfast.stages.semantic import semantic_job
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.cpu.steps import DTYPES
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# Positions: those of every semantic prompt, and of a coarse one at full history.
PROMPTS = {"semantic": 257, "coarse": 887}
TORCH_DTYPES = ("float32", "bfloat16")


def run(plan: Plan, record: Recorder, part: str) -> None:
    """The torch engine right behind the native one, where it has the dtype."""
    networks.use_threads(plan)
    size = model_size(plan, part.split()[0])
    for dtype in DTYPES:
        for engine in ("cpu", "torch") if dtype in TORCH_DTYPES else ("cpu",):
            for stage, length in PROMPTS.items():
                work = partial(time_prefill, plan, size, dtype, stage, length, engine)
                record.measure(f"{size} {dtype} {engine} prompt of {length}", work, dtype=dtype)
            work = partial(time_fine, plan, size, dtype, engine)
            record.measure(f"{size} {dtype} {engine} fine pass", work, dtype=dtype)
    if size != "large":
        for engine in ("cpu", "torch"):
            record.measure(f"codec {engine}, {plan.clip_s:g} s", partial(time_codec, plan, size, engine))


def time_some(plan: Plan, work: Callable[[], object], *, most: int, seconds: float) -> list[float]:
    """Milliseconds of calls after one that warms up, or of that one where it took all the time there is."""
    device = torch.device("cpu")
    first = wall_times(device, work, least=1, most=1, seconds=0)
    if plan.smoke or first[0] > 1e3 * seconds:
        return first
    return wall_times(device, work, least=1, most=most, seconds=seconds)


def time_prefill(plan: Plan, size: str, dtype: str, stage: str, length: int, engine: str) -> dict[str, Any]:
    """From the prompt to the first token drawn."""
    decoder = networks.build_decoder(plan, size, dtype, stage, engine)
    layout = inputs.checkpoint(plan, size).layout
    job = prompt_job(layout, stage, length)
    times = time_some(plan, lambda: decoder.run([job]), most=10, seconds=3)
    config = inputs.checkpoint(plan, size).stage(inputs.COMPONENTS[stage]).config
    row = {"size": size, "dtype": dtype, "engine": engine, "stage": stage, "positions": length}
    return row | {"threads": plan.threads} | timed(times, pass_flop(config, length))


def prompt_job(layout: Layout, stage: str, length: int) -> Job:
    """A prompt, and one token."""
    if stage != "semantic":
        return inputs.step_job(stage, layout, length, 1, 0)
    random = Randomness(0)
    job = semantic_job(np.arange(40), layout, Sampling(0.7), allow_early_stop=False, random=random)
    return Job(job.prompt, 1, job.slices, job.sampling, n_merged=job.n_merged, random=random)


def fine_window(plan: Plan, size: str) -> FineJob:
    """A whole window with two codebooks given."""
    layout = inputs.checkpoint(plan, size).layout
    frames = layout.fine.window
    window = np.full((frames, layout.fine.n_codebooks), layout.codebook_size, np.int32)
    window[:, :2] = np.random.default_rng(0).integers(0, layout.codebook_size, (frames, 2))
    return FineJob(window, 0, 2, layout.codebook_size, Sampling(0.5), Randomness(0))


def time_fine(plan: Plan, size: str, dtype: str, engine: str) -> dict[str, Any]:
    """One window, six codebooks."""
    refiner: Refiner = networks.build_refiner(plan, size, dtype, engine)
    job = fine_window(plan, size)
    times = time_some(plan, lambda: refiner.refine(job), most=5, seconds=4)
    flop = fine_flop(inputs.checkpoint(plan, size).stage("fine").config, len(job.window), 2)
    row = {"size": size, "dtype": dtype, "engine": engine, "stage": "fine", "frames": len(job.window)}
    return row | {"threads": plan.threads} | timed(times, flop)


def time_codec(plan: Plan, size: str, engine: str) -> dict[str, Any]:
    """A clip's codes; the native engine's codec is the same in every dtype."""
    codec = networks.build_codec(plan, size, "float32", engine)
    layout = inputs.checkpoint(plan, size).layout
    shape = (layout.fine.n_codebooks, round(plan.clip_s * layout.coarse.rate_hz))
    codes = np.random.default_rng(0).integers(0, layout.codebook_size, shape).astype(np.int32)
    times = time_some(plan, lambda: codec.decode(codes), most=15, seconds=6)
    row = {"engine": engine, "stage": "codec", "audio_s": plan.clip_s, "threads": plan.threads}
    return row | in_row("ms", times, 2)


def timed(times: list[float], flop: float) -> dict[str, Any]:
    """Milliseconds, operations, and operations per second."""
    rate = flop / summarize(times)["median"] / 1e6
    return in_row("ms", times, 2) | {"gflop": round(flop / 1e9, 1), "gflop_per_s": round(rate, 1)}
