"""Several sentences together: the time of a step that advances them all, for each of them."""

from typing import Any

from barkfast.bench.measure import in_row, step_times, summarize
from barkfast.bench.roofline import decoder_step_bytes
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.plan import Plan
from benchmarks.record import Recorder

BATCHES = (1, 4, 8)
PROMPTS = {"semantic": 270, "coarse": 600}
STEPS = 42


def run(plan: Plan, record: Recorder) -> None:
    """One decoder with as many slots as the largest batch has."""
    networks.use_threads(plan)
    size = model_size(plan, "small")
    for dtype in ("int8",) if plan.smoke else ("int8", "bfloat16"):
        for stage in PROMPTS:
            alone = None
            for batch in BATCHES:
                work = lambda a=(size, dtype, stage, batch, alone): time_batch(plan, *a)  # noqa: E731
                name = f"{size} {dtype} {stage}, {batch} together, {plan.threads} threads"
                row = record.measure(name, work, dtype=dtype)
                if batch == 1 and row is not None:
                    alone = row["ms_median"]


def time_batch(plan: Plan, size: str, dtype: str, stage: str, batch: int, alone: float | None) -> dict[str, Any]:
    """Milliseconds per step, and how many times as fast a token is as one alone."""
    decoder = networks.build_decoder(plan, size, dtype, stage, n_slots=max(BATCHES))
    layout = inputs.checkpoint(plan, size).layout
    steps = 8 if plan.smoke else STEPS
    jobs = [inputs.step_job(stage, layout, PROMPTS[stage], steps, seed) for seed in range(batch)]
    times = step_times(decoder, jobs)
    context = PROMPTS[stage] + steps / 2
    parts = decoder_step_bytes(decoder, context=context, candidates=inputs.candidates(jobs[0]), batch=batch)
    middle = summarize(times)["median"]
    return {
        "size": size,
        "dtype": dtype,
        "stage": stage,
        "batch": batch,
        "threads": plan.threads,
        "context": context,
        "bytes": {"layers": parts.layers, "head": parts.head, "kv": parts.kv, "total": parts.total},
        "ms_per_token": round(middle / batch, 4),
        "times_one_alone": None if alone is None else round(alone / (middle / batch), 2),
    } | in_row("ms", times)
