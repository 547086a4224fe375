"""Is it right? Greedy float32 tokens against the torch engine's, and how far the other dtypes' logits are off."""

from typing import Any

import numpy as np

from barkfast.bench.check import CODEC_LIMITS, FINE_SHARES
from barkfast.bench.compare import count_equal, rms_ratio
from barkfast.bench.teacher_forced import GREEDY
from barkfast.jobs import FineJob, Job
from barkfast.stages.semantic import semantic_job
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.logits import check_logits
from benchmarks.cpu.steps import DTYPES
from benchmarks.plan import Plan
from benchmarks.record import Recorder


def run(plan: Plan, record: Recorder) -> None:
    """Every row has `ok`."""
    networks.use_threads(plan)
    for size in ("nano",) if plan.smoke else ("nano", "small"):
        for stage in ("semantic", "coarse"):
            record.measure(f"{stage} float32 {size}", lambda a=(size, stage): check_tokens(plan, *a))
    record.measure("three semantic jobs together float32 nano", lambda: check_batch(plan))
    record.measure("fine float32 nano", lambda: check_fine(plan))
    record.measure("codec nano", lambda: check_codec(plan, "nano"))
    sizes = ("nano",) if plan.smoke else ("nano", "small")
    # Not a row like those below: if float32 is wrong all is.
    record.measure("float32 logits", lambda: check_logits(plan, "float32", sizes))
    for dtype in DTYPES[1:]:
        record.measure(f"logits {dtype}", lambda dtype=dtype: check_logits(plan, dtype, sizes))


def greedy_job(plan: Plan, size: str, stage: str, seed: int = 0) -> Job:
    """A prompt and a few dozen steps."""
    layout = inputs.checkpoint(plan, size).layout
    steps = (48 if size == "nano" else 16) + seed
    if stage == "semantic":
        ids = np.random.default_rng(seed).integers(0, 100_000, 20 + 3 * seed)
        job = semantic_job(ids, layout, GREEDY, allow_early_stop=False)
        return Job(job.prompt, steps, job.slices, GREEDY, n_merged=job.n_merged)
    job = inputs.step_job(stage, layout, 300 + 70 * seed, steps, seed)
    return Job(job.prompt, job.steps, job.slices, GREEDY)


def compare(expected: list[np.ndarray], actual: list[np.ndarray]) -> dict[str, Any]:
    equal = sum(count_equal(e, a) for a, e in zip(actual, expected, strict=True))
    total = sum(map(len, expected))
    return {"ok": equal == total > 0, "equal": equal, "tokens": total}


def check_tokens(plan: Plan, size: str, stage: str) -> dict[str, Any]:
    """One job on both engines."""
    job = greedy_job(plan, size, stage)
    engines = ("torch", "cpu")
    expected, actual = (networks.build_decoder(plan, size, "float32", stage, engine).run([job]) for engine in engines)
    return compare(expected, actual)


def check_batch(plan: Plan) -> dict[str, Any]:
    """Several jobs together against one after the other."""
    jobs = [greedy_job(plan, "nano", "semantic", seed) for seed in range(3)]
    expected = networks.build_decoder(plan, "nano", "float32", "semantic", "torch").run(jobs)
    actual = networks.build_decoder(plan, "nano", "float32", "semantic", n_slots=3).run(jobs)
    return compare(expected, actual)


def check_fine(plan: Plan) -> dict[str, Any]:
    """A window filled greedily."""
    window = np.full((1024, 8), 1024, np.int32)
    window[:, :2] = np.random.default_rng(0).integers(0, 1024, (1024, 2))
    job = FineJob(window, 0, 2, 1024, GREEDY)
    engines = ("torch", "cpu")
    expected, actual = (networks.build_refiner(plan, "nano", "float32", engine).refine(job) for engine in engines)
    share = float((expected == actual).mean())
    return {"ok": share >= FINE_SHARES["cpu"], "equal_share": round(share, 6)}


def check_codec(plan: Plan, size: str) -> dict[str, Any]:
    """Samples of random codes."""
    codes = np.random.default_rng(0).integers(0, 1024, (8, 200)).astype(np.int32)
    expected, actual = (networks.build_codec(plan, size, engine=engine).decode(codes) for engine in ("torch", "cpu"))
    error = rms_ratio(expected, actual)
    return {"ok": error < CODEC_LIMITS["cpu"], "rms_ratio": error}
