"""A step's kernels, each timed without overlap with its neighbours, and whether the host makes the device wait.

How far kernels overlap cannot be seen here: the profiler measures them without dependent launches. The probe and the
section `ab` say that.
"""

import warnings
from collections import Counter
from functools import lru_cache

import torch

from barkfast.bench.profile import centred_job, measure_rate, profile_cuda, trace_events
from barkfast.runtime.cuda.decoder import CudaDecoder
from benchmarks import inputs, models
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder, Row

CONTEXT = 917
# Calls that make the host wait until the device has nothing left to do.
FORBIDDEN = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy", "cuStreamSynchronize", "cuCtxSynchronize")


def run(plan: Plan, record: Recorder) -> None:
    """Coarse steps, whose context is that of speech with a voice."""
    record.measure("no synchronisation in the loop", lambda: count_calls(plan))
    cases = [("float32", 1)] if plan.smoke else [("bfloat16", 1), ("int8", 1), ("bfloat16", 64)]
    for dtype, batch in cases:
        name = f"kernels of a {plan.largest} {dtype} step, batch {batch}"
        record.measure(name, lambda a=(dtype, batch): profile_step(plan, *a), dtype=dtype)


@lru_cache(maxsize=1)
def read_rate(plan: Plan) -> float:
    """What floors refer to, in GB/s."""
    return measure_rate(plan.device_name, quick=plan.smoke)


def profile_step(plan: Plan, dtype: str, batch: int) -> Row:
    """Microseconds of a step, and of each of its kernels alone."""
    decoder = models.build_decoder(plan, plan.largest, dtype, "coarse", n_slots=batch)
    layout = inputs.checkpoint(plan, plan.largest).layout
    jobs = [centred_job(decoder, layout, "coarse", CONTEXT, quick=plan.smoke, seed=i) for i in range(batch)]
    return profile_cuda(decoder, jobs, context=CONTEXT, read_gb_per_s=read_rate(plan), quick=plan.smoke)


def count_calls(plan: Plan) -> Row:
    """Runtime calls of a short and of a longer job: what grows from one to the other is in the loop."""
    dtype = "float32" if plan.smoke else "bfloat16"
    decoder = models.build_decoder(plan, plan.largest, dtype, "coarse")
    layout = inputs.checkpoint(plan, plan.largest).layout
    lengths = (2, 3) if plan.smoke else (41, 121)
    counts = []
    for steps in lengths:
        # Once without the profiler: graphs are captured then.
        decoder.run([inputs.step_job("coarse", layout, 300, steps, 0)])
        job = inputs.step_job("coarse", layout, 300, steps, 0)
        events = trace_events(plan.device, lambda job=job: decoder.run([job]))
        runtime = [e["name"] for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver")]
        counts.append(Counter(runtime))
    if plan.smoke:
        raise NotRun("needs a CUDA device")
    if not any("Launch" in name for name in counts[1]):
        raise RuntimeError("the profiler saw no launches; is CUPTI usable here?")
    tokens = lengths[1] - lengths[0]
    growth = {name: (counts[1][name] - counts[0][name]) / tokens for name in counts[1] | counts[0]}
    found = {name: rate for name, rate in growth.items() if name.startswith(FORBIDDEN) and "Async" not in name}
    waits = {name: rate for name, rate in found.items() if rate > 0}
    return {
        "ok": not waits,
        "waits_per_token": waits,
        "calls_per_token": {name: round(rate, 3) for name, rate in sorted(growth.items()) if rate},
        "torch_warnings": torch_synchronisations(plan, decoder),
    }


def torch_synchronisations(plan: Plan, decoder: CudaDecoder) -> int | None:
    """Operations of torch that waited for the device during a run, by its own account."""
    if plan.smoke:
        return None
    job = inputs.step_job("coarse", inputs.checkpoint(plan, plan.largest).layout, 300, 41, 0)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            decoder.run([job])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)
