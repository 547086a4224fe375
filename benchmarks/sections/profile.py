"""Where a step's time goes, kernel by kernel, and whether the host ever makes the device wait."""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options, on_device
from barkfast.runtime.cuda.run import STEPS_PER_REPLAY
from benchmarks import inputs, models
from benchmarks.floors import DATASHEET, kernel_bytes
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder, Row

REPLAYS = 4
PROMPT = 897
# Calls that make the host wait until the device has nothing left to do.
FORBIDDEN = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy", "cuStreamSynchronize", "cuCtxSynchronize")


def run(plan: Plan, record: Recorder) -> None:
    """Coarse steps, whose context is that of speech with a voice."""
    record.measure("no synchronisation in the loop", lambda: count_calls(plan))
    cases = (
        [("float32", 1, True)] if plan.smoke else [("bfloat16", 1, True), ("bfloat16", 1, False), ("int8", 1, False)]
    )
    for dtype, batch, pdl in [*cases, *([] if plan.smoke else [("bfloat16", 64, False)])]:
        name = f"kernels of a {plan.largest} {dtype} step, batch {batch}, {'with' if pdl else 'without'} PDL"
        record.measure(name, lambda a=(dtype, batch, pdl): profile_step(plan, *a), dtype=dtype)


def trace(plan: Plan, work: Callable[[], object], path: Path) -> list[dict[str, Any]]:
    """What the device and the CUDA runtime did during `work`, as events of Chrome's trace format."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    kinds = [ProfilerActivity.CPU] if plan.smoke else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profiler(activities=kinds) as profile:
            work()
            if plan.device.type == "cuda":
                torch.cuda.synchronize(plan.device)
    profile.export_chrome_trace(str(path))
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    path.unlink()
    return [event for event in events if event.get("ph") == "X"]


def decoder_of(plan: Plan, dtype: str, batch: int, pdl: bool) -> CudaDecoder:
    options = Options(graphs=True, pdl=pdl and Options.for_device(plan.device).pdl)
    return models.build_decoder(plan, plan.largest, dtype, "coarse", n_slots=batch, options=options)


def profile_step(plan: Plan, dtype: str, batch: int, pdl: bool) -> Row:
    """Microseconds per step of each kernel; with PDL a kernel's time includes its wait for the one before."""
    decoder = decoder_of(plan, dtype, batch, pdl)
    layout = inputs.checkpoint(plan, plan.largest).layout
    n = 1 if plan.smoke else REPLAYS
    with on_device(decoder.device):
        jobs = [inputs.step_job("coarse", layout, PROMPT, 2 + 2 * n * STEPS_PER_REPLAY, i) for i in range(batch)]
        slots = [decoder.admit(job) for job in jobs]

        def replay() -> None:
            for _ in range(n):
                decoder.launch(slots, STEPS_PER_REPLAY)

        replay()
        events = trace(plan, replay, plan.work / f"trace-{dtype}-{batch}-{pdl}.json")
    steps = n * STEPS_PER_REPLAY
    context = PROMPT + 1.5 * steps
    storage = str(models.storage(plan, dtype)).removeprefix("torch.")
    rows = inputs.candidates(jobs[0])
    shape = {"dtype": dtype, "context": context, "candidates": rows, "batch": batch, "storage": storage}
    kernels = tabulate([e for e in events if e.get("cat") == "kernel"], steps, kernel_bytes(decoder.config, **shape))
    if not kernels and not plan.smoke:
        raise RuntimeError("the profiler saw no kernels; is CUPTI usable here?")
    return {
        "dtype": dtype,
        "batch": batch,
        "pdl": pdl,
        "context": context,
        "kernels": kernels,
        "us_per_step": round(sum(kernel["us_per_step"] for kernel in kernels), 2),
    }


def tabulate(events: list[dict[str, Any]], steps: int, n_bytes: dict[str, int]) -> list[dict[str, Any]]:
    """A line per kernel, the longest first: time, launches and, where known, bytes per step and their rate."""
    spent: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in events:
        spent[event["name"]] += event["dur"]
        launches[event["name"]] += 1
    bandwidth = DATASHEET.get(torch.cuda.get_device_name(0), (None,))[0] if torch.cuda.is_available() else None
    lines = []
    for name, microseconds in spent.most_common():
        line = {
            "kernel": name[:120],
            "us_per_step": round(microseconds / steps, 2),
            "launches_per_step": round(launches[name] / steps, 2),
        }
        size = next((size for piece, size in n_bytes.items() if piece in name), None)
        if size is not None:
            line["bytes_per_step"] = size
            line["gb_per_s"] = round(size * steps / microseconds / 1e3, 1)
            line["floor_us"] = round(size / bandwidth / 1e3, 2) if bandwidth else None
        lines.append(line)
    return lines


def count_calls(plan: Plan) -> Row:
    """Runtime calls of a short and of a longer job: what grows from one to the other is in the loop."""
    dtype = "float32" if plan.smoke else "bfloat16"
    decoder = decoder_of(plan, dtype, 1, True)
    layout = inputs.checkpoint(plan, plan.largest).layout
    lengths = (2, 3) if plan.smoke else (41, 121)
    counts = []
    for steps in lengths:
        # Once without the profiler: graphs are captured then.
        decoder.run([inputs.step_job("coarse", layout, 300, steps, 0)])
        job = inputs.step_job("coarse", layout, 300, steps, 0)
        events = trace(plan, lambda job=job: decoder.run([job]), plan.work / f"trace-run-{steps}.json")
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
