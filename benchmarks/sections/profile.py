"""Where a decode step's time goes; on a GPU also whether the host makes the device wait.

On a CPU each part's kernels are timed alone. On a GPU each kernel is timed without overlap with its neighbours: how far
they overlap, the probe and the section `ab` say.
"""

from collections import Counter
from functools import partial
from typing import Any

from barkfast.bench.measure import step_job
from barkfast.bench.profile import profile_decoder, trace_events
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder, Row

CONTEXT = 917
# Size, dtype, sequences at a time.
CPU_CASES = tuple((size, dtype, 1) for size in ("small", "large") for dtype in ("int8", "bfloat16"))
GPU_CASES = (("large", "bfloat16", 1), ("large", "int8", 1), ("large", "bfloat16", 64))
# Calls that make the host wait until the device has nothing left to do.
FORBIDDEN = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy", "cuStreamSynchronize", "cuCtxSynchronize")


def run(plan: Plan, record: Recorder) -> None:
    """Coarse steps, whose context is that of speech with a voice."""
    if not plan.threads:
        record.measure("no synchronisation in the loop", lambda: count_calls(plan))
    cases = CPU_CASES if plan.threads else GPU_CASES
    for size, dtype, batch in cases[:1] if plan.smoke else cases:
        size, dtype = plan.size(size), "float32" if plan.interpreted else dtype
        name = f"{size} {dtype} coarse step at {CONTEXT}, batch {batch}{plan.of_threads()}"
        record.measure(name, partial(profile_step, plan, size, dtype, batch), dtype=dtype)


def profile_step(plan: Plan, size: str, dtype: str, batch: int) -> dict[str, Any]:
    """Microseconds of a step and of each of its parts, and what they must read at the least."""
    decoder = networks.build_decoder(plan, size, dtype, "coarse", n_slots=batch)
    layout = networks.checkpoint(plan, size).layout
    options = {"context": CONTEXT, "device": plan.device_name, "batch": batch, "quick": plan.smoke}
    return {"size": size, "threads": plan.threads} | profile_decoder(decoder, layout, "coarse", **options)


def count_calls(plan: Plan) -> Row:
    """Runtime calls of a short and of a longer job: what grows from one to the other is in the loop."""
    size, dtype = plan.size("large"), "float32" if plan.smoke else "bfloat16"
    decoder = networks.build_decoder(plan, size, dtype, "coarse")
    layout = networks.checkpoint(plan, size).layout
    lengths = (2, 3) if plan.smoke else (41, 121)
    counts = []
    for steps in lengths:
        # Once without the profiler: graphs are captured then.
        decoder.run([step_job("coarse", layout, 300, steps, 0)])
        job = step_job("coarse", layout, 300, steps, 0)
        events = trace_events(plan.device, lambda job=job: decoder.run([job]))
        counts.append(Counter(e["name"] for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver")))
    if plan.smoke:
        raise NotRun("needs a CUDA device")
    if not any("Launch" in name for name in counts[1]):
        raise RuntimeError("the profiler saw no launches; is CUPTI usable here?")
    tokens = lengths[1] - lengths[0]
    growth = {name: (counts[1][name] - counts[0][name]) / tokens for name in counts[1] | counts[0]}
    waits = {name: n for name, n in growth.items() if name.startswith(FORBIDDEN) and "Async" not in name and n > 0}
    return {
        "ok": not waits,
        "waits_per_token": waits,
        "calls_per_token": {name: round(rate, 3) for name, rate in sorted(growth.items()) if rate},
    }
