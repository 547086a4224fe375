"""One token at a time: each network's step by dtype, threads and length of context, and what it reads."""

from typing import Any

from barkfast.bench.measure import in_row, step_times
from barkfast.bench.roofline import decoder_step_bytes
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.cpu.steps import DTYPES
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# Prompt before the first step: a short context, and one as long as it gets.
PROMPTS = {"semantic": (270, 950), "coarse": (270, 885)}
STEPS, TORCH_STEPS = 66, 12
ROUNDS = 2
# Timed steps that make a row.
LEAST_STEPS = 8


def run(plan: Plan, record: Recorder, part: str) -> None:
    """The torch engine in float32 for comparison."""
    networks.use_threads(plan)
    size = model_size(plan, part.split()[0])
    for dtype, engine in [*((dtype, "cpu") for dtype in DTYPES), ("float32", "torch")]:
        for stage, prompts in PROMPTS.items():
            for prompt in prompts[:1] if plan.smoke else prompts:
                what = "" if engine == "cpu" else " torch"
                name = f"{size} {dtype}{what} {stage} after {prompt}, {plan.threads} threads"
                work = lambda a=(size, dtype, stage, engine, prompt): time_step(plan, *a)  # noqa: E731
                record.measure(name, work, dtype=dtype)


def time_step(plan: Plan, size: str, dtype: str, stage: str, engine: str, prompt: int) -> dict[str, Any]:
    """Milliseconds of each step, without prompts."""
    decoder = networks.build_decoder(plan, size, dtype, stage, engine)
    layout = inputs.checkpoint(plan, size).layout
    steps = 12 if plan.smoke else STEPS if engine == "cpu" else TORCH_STEPS
    times: list[float] = []
    for seed in range(1 if plan.smoke or engine == "torch" else ROUNDS):
        job = inputs.step_job(stage, layout, prompt, steps, seed)
        times += step_times(decoder, [job])
    if len(times) < LEAST_STEPS:
        raise RuntimeError(f"the job ended after {len(times)} timed steps; expected at least {LEAST_STEPS}")
    context = prompt + steps / 2
    parts = decoder_step_bytes(decoder, context=context, candidates=inputs.candidates(job))
    return {
        "size": size,
        "dtype": dtype,
        "stage": stage,
        "engine": engine,
        "threads": plan.threads,
        "context": context,
        "bytes": {"layers": parts.layers, "head": parts.head, "kv": parts.kv, "total": parts.total},
    } | in_row("ms", times)
