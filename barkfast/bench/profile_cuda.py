"""The cuda engine's decode step: its own time, and that of each of its kernels by torch's profiler."""

import copy
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from barkfast.bench.profile_parts import Part, Profile, make_part, make_profile
from barkfast.bench.roofline import kernel_bytes
from barkfast.bench.steps import candidates
from barkfast.bench.timing import queue_times, summarize, synchronize
from barkfast.errors import EngineError
from barkfast.jobs import Job
from barkfast.runtime.decoder import RetainedSlots

if TYPE_CHECKING:
    from barkfast.runtime.cuda.decoder import CudaDecoder


def profile_cuda(
    decoder: "CudaDecoder", jobs: Sequence[Job], *, context: float, read_gb_per_s: float, quick: bool = False
) -> Profile:
    """`profile_step` of a step for all `jobs` together, which have prompts and steps of the same length.

    Errors: EngineError if the profiler cannot see the device's kernels.
    """
    from barkfast.runtime.cuda.run import STEPS_PER_REPLAY

    steps = 1 if quick else STEPS_PER_REPLAY
    # All but the first replay, and never to the end of a job.
    replays = 1 if quick else (jobs[0].steps - 2) // steps - 1

    def measure(work: Callable[[], object]) -> list[float]:
        return queue_times(decoder.device, [work] * replays)

    def trace(work: Callable[[], object]) -> list[dict[str, Any]]:
        return trace_events(decoder.device, lambda: [work() for _ in range(replays)])

    whole = summarize(_queue_steps(decoder, jobs, steps, measure))["median"] * 1e3 / steps
    events = _queue_steps(_without_overlap(decoder), jobs, steps, trace)
    kernels = [event for event in events if event.get("cat") == "kernel"]
    if not kernels and decoder.device.type == "cuda":
        raise EngineError("torch's profiler saw no kernels: CUPTI cannot be used here, perhaps for want of permission")
    sizes = kernel_bytes(
        decoder.config,
        dtype=decoder.weight_dtype,
        context=context,
        candidates=candidates(jobs[0]),
        batch=len(jobs),
        storage=str(decoder.dtype).removeprefix("torch."),
    )
    parts = tabulate(kernels, replays * steps, sizes, read_gb_per_s)
    return make_profile(decoder, decoder.stage, "cuda", jobs, context, whole, parts, read_gb_per_s)


def _queue_steps(
    decoder: "CudaDecoder", jobs: Sequence[Job], steps: int, measure: Callable[[Callable[[], object]], Any]
) -> Any:
    """What `measure` makes of work that queues so many steps of all jobs; such work was done once before."""
    from barkfast.runtime.cuda.device import on_device

    with on_device(decoder.device):
        slots = [decoder.admit(job) for job in jobs]
        try:
            decoder.launch(slots, steps)
            synchronize(decoder.device)
            return measure(lambda: decoder.launch(slots, steps))
        finally:
            for slot in slots:
                decoder.release(slot)


def _without_overlap(decoder: "CudaDecoder") -> "CudaDecoder":
    """A decoder of the same weights whose kernels wait for one another, so that each one's time is its own."""
    if not decoder.options.pdl:
        return decoder
    twin = copy.copy(decoder)
    twin.options, twin.active, twin._retained = replace(decoder.options, pdl=False), {}, RetainedSlots()
    twin._set_up()
    return twin


def trace_events(device: torch.device, work: Callable[[], object]) -> list[dict[str, Any]]:
    """What torch, the CUDA runtime and the device did during `work`, as events of Chrome's trace format."""
    from torch.profiler import profile

    with tempfile.TemporaryDirectory(prefix="barkfast-trace-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile() as profiler:
            work()
            synchronize(device)
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return [event for event in events if event.get("ph") == "X"]


def tabulate(events: Sequence[dict[str, Any]], steps: int, sizes: dict[str, int], rate: float) -> list[Part]:
    """A line per kernel, of one step.

    Args:
        events: of kernels, "dur" in microseconds, over `steps` steps.
        sizes: bytes per step by a piece of the kernel's name; of other kernels they are not known.
        rate: of reading, GB/s.
    """
    spent: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in events:
        spent[event["name"]] += event["dur"]
        launches[event["name"]] += 1
    parts = []
    for name, microseconds in spent.items():
        size = next((size for piece, size in sizes.items() if piece in name), None)
        floor = None if size is None else size / rate / 1e3
        parts.append(make_part(name[:120], round(launches[name] / steps, 2), microseconds / steps, size, floor))
    return parts
