"""Where a decode step's time goes: each part's kernels timed alone, and what the whole step takes beyond them."""

from functools import partial
from typing import Any

from barkfast.bench.profile import profile_decoder
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.plan import Plan
from benchmarks.record import Recorder

CONTEXT = 906


def run(plan: Plan, record: Recorder) -> None:
    """Coarse steps, whose context is that of speech with a voice."""
    networks.use_threads(plan)
    for size in ("small",) if plan.smoke else ("small", "large"):
        for dtype in ("int8",) if plan.smoke else ("int8", "bfloat16"):
            size = model_size(plan, size)
            name = f"{size} {dtype} coarse step at {CONTEXT}, {plan.threads} threads"
            record.measure(name, partial(profile_step, plan, size, dtype), dtype=dtype)


def profile_step(plan: Plan, size: str, dtype: str) -> dict[str, Any]:
    """Microseconds of each part, of the whole, and of what is not among the parts: norms, quantization, waiting."""
    decoder = networks.build_decoder(plan, size, dtype, "coarse")
    layout = inputs.checkpoint(plan, size).layout
    found = profile_decoder(decoder, layout, "coarse", context=CONTEXT, device="cpu", quick=plan.smoke)
    return {"size": size, "threads": plan.threads, **found}
