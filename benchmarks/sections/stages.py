"""What is not a decode step: prompts, the fine pass of a window, the codec."""

from functools import lru_cache
from typing import Any

import numpy as np

from barkfast.bench.measure import in_row, queue_times, summarize, wall_times
from barkfast.bench.roofline import fine_flop, pass_flop
from barkfast.config import FineConfig, Sampling
from barkfast.jobs import FineJob
from barkfast.runtime import select
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import on_device
from barkfast.runtime.sampling import Randomness
from barkfast.stages.semantic import semantic_job
from benchmarks import inputs, models
from benchmarks.plan import Plan
from benchmarks.record import Recorder

CASES = (("large", "bfloat16"), ("large", "int8"), ("small", "bfloat16"))
# A voice-less or voiced semantic prompt, and coarse prompts in the middle and at the end of a clip.
LENGTHS = ((257, "semantic"), (896, "coarse"), (960, "coarse"))


def run(plan: Plan, record: Recorder) -> None:
    """Rows by size and dtype."""
    for size, dtype in (("nano", "float32"),) if plan.smoke else CASES:
        for length, stage in LENGTHS[:1] if plan.smoke else LENGTHS:
            work = lambda a=(size, dtype, stage, length): time_prefill(plan, *a)  # noqa: E731
            record.measure(f"{size} {dtype} prefill of {length}", work, dtype=dtype)
        if dtype == "int8":
            continue
        record.measure(f"{size} {dtype} fine pass", lambda a=(size, dtype): time_fine(plan, *a), dtype=dtype)
    dtype = "float32" if plan.smoke else "bfloat16"
    record.measure("codec", lambda: time_codec(plan, dtype), dtype=dtype)


@lru_cache(maxsize=1)
def decoder_of(plan: Plan, size: str, dtype: str, stage: str) -> CudaDecoder:
    return models.build_decoder(plan, size, dtype, stage)


def repeats(plan: Plan) -> int:
    return 1 if plan.smoke else 40


def time_prefill(plan: Plan, size: str, dtype: str, stage: str, length: int) -> dict[str, Any]:
    """From the prompt to the first token drawn; uploading the prompt included."""
    decoder = decoder_of(plan, size, dtype, stage)
    layout = inputs.checkpoint(plan, size).layout
    random = Randomness(0)
    if stage == "semantic":
        ids = np.arange(40)
        job = semantic_job(ids, layout, Sampling(0.7), max_duration_s=1.0, allow_early_stop=False, random=random)
    else:
        job = inputs.step_job(stage, layout, length, 8, 0)

    def work() -> None:
        decoder.release(decoder.admit(job))

    with on_device(decoder.device):
        for _ in range(0 if plan.smoke else 3):
            work()
        times = queue_times(decoder.device, [work] * repeats(plan))
    flop = pass_flop(decoder.config, length)
    return {"size": size, "dtype": dtype, "stage": stage, "positions": length} | timed(times, flop)


def time_fine(plan: Plan, size: str, dtype: str) -> dict[str, Any]:
    """One window, six codebooks, from host array to host array."""
    model = inputs.checkpoint(plan, size)
    weights = model.stage("fine")
    assert isinstance(weights.config, FineConfig)
    refiner = select.build_refiner(weights.config, weights.tensors, models.placement(plan, dtype))
    frames = 16 if plan.smoke else model.layout.fine.window
    window = np.full((frames, 8), model.layout.codebook_size, np.int32)
    window[:, :2] = np.random.default_rng(0).integers(0, model.layout.codebook_size, (frames, 2))
    job = FineJob(window, 0, 2, model.layout.codebook_size, Sampling(0.5), Randomness(0))
    for _ in range(0 if plan.smoke else 3):
        refiner.refine(job)
    least = repeats(plan)
    times = wall_times(plan.device, lambda: refiner.refine(job), least=min(least, 20), most=least, seconds=2)
    flop = fine_flop(weights.config, frames, 2)
    return {"size": size, "dtype": dtype, "frames": frames} | timed(times, flop)


def time_codec(plan: Plan, dtype: str) -> dict[str, Any]:
    """10 s of codes, from host array to host array."""
    model = inputs.checkpoint(plan, plan.largest)
    weights = model.codec()
    codec = select.build_codec(weights.config, weights.tensors, models.placement(plan, dtype))
    frames = round(plan.clip_s * model.layout.coarse.rate_hz)
    codes = np.random.default_rng(0).integers(0, model.layout.codebook_size, (8, frames)).astype(np.int32)
    for _ in range(0 if plan.smoke else 3):
        codec.decode(codes)
    least = repeats(plan)
    times = wall_times(plan.device, lambda: codec.decode(codes), least=min(least, 20), most=least, seconds=2)
    return {"frames": frames} | in_row("ms", times)


def timed(times: list[float], flop: float) -> dict[str, Any]:
    """Milliseconds, operations, and operations per second."""
    rate = flop / summarize(times)["median"] / 1e9
    return in_row("ms", times) | {"tflop": round(flop / 1e12, 4), "tflop_per_s": round(rate, 2)}
