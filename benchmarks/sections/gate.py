"""Is it right? Greedy float32 tokens of the smallest model on the device, against the torch engine on the CPU."""

from typing import Any

import numpy as np

from barkfast.bench.check import CODEC_LIMITS, FINE_SHARES, LOGITS_LIMITS
from barkfast.bench.compare import count_equal, rms_ratio
from barkfast.bench.teacher_forced import GREEDY
from barkfast.jobs import FineJob, Job
from barkfast.runtime import select
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.stages.semantic import semantic_job
from benchmarks import inputs, models
from benchmarks.plan import Plan
from benchmarks.record import Recorder

SIZE = "nano"
# The target is 0.01 for 16 bits; only beyond these something must be wrong, rather than rounded.
LIMITS = LOGITS_LIMITS["cuda"]


def run(plan: Plan, record: Recorder) -> None:
    """Every row has `ok`."""
    for stage in ("semantic", "coarse"):
        record.measure(f"{stage} float32", lambda stage=stage: check_tokens(plan, stage, 1))
    record.measure("semantic float32 of 16 slots", lambda: check_tokens(plan, "semantic", 16))
    record.measure("fine float32", lambda: check_fine(plan))
    record.measure("codec", lambda: check_codec(plan))
    for dtype in ("float16", "int8") if plan.smoke else ("bfloat16", "float16", "int8"):
        record.measure(f"logits {dtype}", lambda dtype=dtype: check_logits(plan, dtype))
    if not plan.smoke:
        record.measure("graphs equal direct launches bfloat16", lambda: check_graphs(plan))


def cuda_decoder(plan: Plan, stage: str, dtype: str, *, n_slots: int = 1, graphs: bool = True) -> CudaDecoder:
    options = Options(graphs=graphs, pdl=Options.for_device(plan.device).pdl)
    return models.build_decoder(plan, SIZE, dtype, stage, n_slots=n_slots, options=options)


def greedy_jobs(plan: Plan, stage: str, n: int) -> list[Job]:
    """A stage's jobs: prompts and steps differ."""
    layout = inputs.checkpoint(plan, SIZE).layout
    steps = 4 if plan.smoke else 48
    if stage == "semantic":
        rng = np.random.default_rng(0)
        ids = [rng.integers(0, 100_000, 20 + 3 * i) for i in range(n)]
        jobs = [semantic_job(text, layout, GREEDY, allow_early_stop=False) for text in ids]
        return [Job(j.prompt, steps + i, j.slices, GREEDY, n_merged=j.n_merged) for i, j in enumerate(jobs)]
    jobs = [inputs.step_job(stage, layout, 300 + 70 * i, steps + i, i) for i in range(n)]
    return [Job(j.prompt, j.steps, j.slices, GREEDY) for j in jobs]


def check_tokens(plan: Plan, stage: str, n_slots: int) -> dict[str, Any]:
    """Tokens of several jobs, one after the other or in a batch."""
    jobs = greedy_jobs(plan, stage, 1 if plan.smoke else 3)
    weights = inputs.checkpoint(plan, SIZE).stage(inputs.COMPONENTS[stage])
    plain = select.build_decoder(stage, weights.config, weights.tensors, models.placement(plan, "float32", "torch"))
    expected = plain.run(jobs)
    actual = cuda_decoder(plan, stage, "float32", n_slots=n_slots).run(jobs)
    equal = sum(count_equal(e, a) for a, e in zip(actual, expected, strict=True))
    total = sum(map(len, expected))
    return {"ok": equal == total, "equal": equal, "tokens": total, "slots": n_slots}


def check_fine(plan: Plan) -> dict[str, Any]:
    """A window filled greedily."""
    weights = inputs.checkpoint(plan, SIZE).stage("fine")
    frames = 48 if plan.smoke else 1024
    window = np.full((frames, 8), 1024, np.int32)
    window[:, :2] = np.random.default_rng(0).integers(0, 1024, (frames, 2))
    job = FineJob(window, 0, 2, 1024, GREEDY)
    networks = [
        select.build_refiner(weights.config, weights.tensors, models.placement(plan, "float32", engine))
        for engine in ("torch", "cuda")
    ]
    filled = [network.refine(job) for network in networks]
    share = float((filled[0] == filled[1]).mean())
    return {"ok": share >= FINE_SHARES["cuda"], "equal_share": round(share, 5), "frames": frames}


def check_codec(plan: Plan) -> dict[str, Any]:
    """Samples of random codes: float32 on the CPU against what the GPU engine stores them in."""
    weights = inputs.checkpoint(plan, SIZE).codec()
    codes = np.random.default_rng(0).integers(0, 1024, (8, 6 if plan.smoke else 200)).astype(np.int32)
    networks = [
        select.build_codec(weights.config, weights.tensors, models.placement(plan, dtype, engine))
        for engine, dtype in (("torch", "float32"), ("cuda", "float32" if plan.smoke else "float16"))
    ]
    samples = [network.decode(codes) for network in networks]
    error = rms_ratio(*samples)
    return {"ok": error < CODEC_LIMITS["cuda"], "rms_ratio": error}


def prompt_logits(plan: Plan, dtype: str) -> np.ndarray:
    """The logits after a prompt."""
    decoder = cuda_decoder(plan, "coarse", dtype)
    job = greedy_jobs(plan, "coarse", 1)[0]
    slot = decoder.admit(job)
    decoder.step()
    return decoder.logits(slot)


def check_logits(plan: Plan, dtype: str) -> dict[str, Any]:
    """How far logits are from float32's."""
    ratio = rms_ratio(prompt_logits(plan, "float32"), prompt_logits(plan, dtype))
    return {"ok": ratio < LIMITS[dtype], "dtype": dtype, "rms_ratio": ratio}


def check_graphs(plan: Plan) -> dict[str, Any]:
    """The same seed's tokens, replayed and launched."""
    layout = inputs.checkpoint(plan, SIZE).layout
    tokens = []
    for graphs in (True, False):
        job = inputs.step_job("coarse", layout, 300, 60, seed=7)
        tokens.append(cuda_decoder(plan, "coarse", "bfloat16", graphs=graphs).run([job])[0])
    equal = int((tokens[0] == tokens[1]).sum())
    return {"ok": equal == 60, "equal": equal, "tokens": 60}
