"""Time of work on a device, steps of a decoder, the machine's limits, and batches."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from barkfast.bench.machine import count_threads, free_memory
from barkfast.bench.roofline import PROCESS_BYTES, network_bytes
from barkfast.bench.workload import Workload
from barkfast.config import Layout, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.jobs import Job, Stop
from barkfast.native import load_native
from barkfast.runtime.decoder import Decoder
from barkfast.runtime.sampling import Randomness
from barkfast.runtime.select import ENGINE_DTYPES, Placement, build_decoder, resolve_device

# Bytes that are read: per thread of a CPU more than its share of any cache, and at least so many; of a GPU.
BYTES_PER_THREAD, LEAST_BYTES, GPU_BYTES = 2**26, 2**28, 2**31
# (rows, columns, inputs) of the products: a wide layer over a window's frames, and what fills a large GPU.
CPU_PRODUCT, GPU_PRODUCT = (4096, 1024, 1024), (8192, 8192, 8192)
# With less time than this, less memory is read and smaller matrices are multiplied, and so less accurately.
FULL_SECONDS = 4.0
MOST_REPEATS = 30
# What the native module calls the dtypes.
NATIVE_FORMATS = {"float32": "f32", "bfloat16": "bf16", "int8": "int8", "int4": "int4"}
# What a product in each dtype may be computed in: a number fits into any wider one.
WIDER = {
    "float32": (torch.float32,),
    "float16": (torch.float16, torch.float32),
    "bfloat16": (torch.bfloat16, torch.float32),
    "int8": (torch.bfloat16, torch.float16, torch.float32),
    "int4": (torch.bfloat16, torch.float32),
}
# What torch multiplies in on a GPU.
GPU_DTYPES = {"cuda": ("float32", "bfloat16", "float16"), "mps": ("float32", "float16")}
BATCHES, MOST_BATCH = (1, 2, 4, 8), 64
# Positions before the first step of a batch, about those in the middle of a clip; steps of each job.
PROMPT, STEPS = 600, 34

# How a limit was measured: {"name", "value", "unit"}.
Way = dict[str, Any]


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Median, 95th percentile (the smallest value that 95 % do not exceed), extremes and count of one or more."""
    ordered, n = sorted(values), len(values)
    p95 = ordered[math.ceil(0.95 * n) - 1]
    return {"median": statistics.median(ordered), "p95": p95, "min": ordered[0], "max": ordered[-1], "n": n}


def in_row(name: str, values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """`summarize` as entries of a row: name_median, name_p95, ..."""
    return {
        f"{name}_{key}": round(value, digits) if isinstance(value, float) else value
        for key, value in summarize(values).items()
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def queue_times(device: torch.device, works: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds between the ends of `works`, queued one after the other; only CUDA does not wait in between."""
    if device.type != "cuda":
        return [wall_times(device, work, least=1, most=1, seconds=0)[0] for work in works]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(works) + 1)]
    events[0].record()
    for work, event in zip(works, events[1:], strict=True):
        work()
        event.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) for start, end in zip(events, events[1:], strict=False)]


def wall_times(
    device: torch.device, work: Callable[[], object], *, least: int, most: int, seconds: float
) -> list[float]:
    """Milliseconds of whole calls of `work`, from `least` to `most` of them, as many as fit in `seconds`."""
    times: list[float] = []
    begin = time.monotonic()
    while len(times) < least or (len(times) < most and time.monotonic() - begin < seconds):
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def step_job(stage: str, layout: Layout, prompt: int, steps: int, seed: int, *, may_stop: bool = True) -> Job:
    """A job of `steps` tokens after `prompt` random ones, which draws from the slices of its stage.

    Args:
        stage: semantic or coarse.
        may_stop: offer the semantic stage's end token, as speech does; random weights hardly ever draw it.
    """
    n, size = layout.semantic.vocab_size, layout.codebook_size
    ids = np.random.default_rng(seed).integers(0, n, prompt).astype(np.int32)
    slices: tuple[tuple[int, int], ...] = ((0, n),)
    stop = None
    if stage == "coarse":
        slices = tuple((n + k * size, n + (k + 1) * size) for k in range(layout.coarse.n_codebooks))
    elif may_stop:
        stop = Stop(layout.semantic.pad_token, layout.semantic.min_eos_p)
    return Job(ids, steps, slices, Sampling(0.7), stop, random=Randomness(seed))


def candidates(job: Job) -> int:
    """Head rows that one step of a job reads: those of one slice, and the stop token's."""
    return job.slices[0][1] - job.slices[0][0] + (job.stop is not None)


class EndedEarly(EngineError):
    """A job ended by its stop token before all steps were timed."""


def step_times(decoder: Decoder, jobs: Sequence[Job], *, skip: int = 2) -> list[float]:
    """Milliseconds per step of a batch of jobs, without their prompts: the one place that times decode steps.

    Of the cuda engine, which queues steps without waiting for them, a value per graph replay; of the others one per
    step but for the first `skip`.

    Raises: EndedEarly; the error of a step that failed.
    """
    if decoder.engine == "cuda":
        return _replay_times(decoder, jobs)
    slots = [decoder.admit(job) for job in jobs]
    times: list[float] = []
    try:
        for _ in range(min(job.steps for job in jobs)):
            start = time.perf_counter()
            steps = decoder.step()
            times.append((time.perf_counter() - start) * 1e3)
            for step in steps:
                if step.error is not None:
                    raise step.error
            if any(step.done and step.token is None for step in steps):
                raise EndedEarly(f"a job ended by its stop token after {len(times)} steps")
    finally:
        for slot in slots:
            decoder.release(slot)
    if len(times) <= skip:
        raise EngineError(f"a job of {len(times)} steps was to be timed, of which the first {skip} do not count")
    return times[skip:]


def _replay_times(decoder: Any, jobs: Sequence[Job]) -> list[float]:
    """`step_times` of the cuda engine: whole replays of its graph of steps behind the prompts' own tokens."""
    from barkfast.runtime.cuda.device import on_device
    from barkfast.runtime.cuda.run import STEPS_PER_REPLAY
    from barkfast_kernels.slots import FAILED

    replays = (min(job.steps for job in jobs) - 1) // STEPS_PER_REPLAY
    if not replays:
        raise EngineError(f"a job of {jobs[0].steps} steps was to be timed; expected {STEPS_PER_REPLAY + 1} or more")
    with on_device(decoder.device):
        slots = [decoder.admit(job) for job in jobs]
        try:
            times = queue_times(decoder.device, [lambda: decoder.launch(slots, STEPS_PER_REPLAY)] * replays)
            snapshot = decoder.take_snapshot()
            snapshot.wait()
            if any(snapshot.status(slot) == FAILED.value for slot in slots):
                raise EngineError("logits are not finite")
            # A job that has ended is passed over by later replays, which would take next to no time.
            drawn = 1 + replays * STEPS_PER_REPLAY
            if any(snapshot.drawn(slot) != drawn for slot in slots):
                raise EndedEarly(f"a job ended by its stop token before all {drawn} tokens were drawn")
        finally:
            for slot in slots:
                decoder.release(slot)
    return [value / STEPS_PER_REPLAY for value in times]


@dataclass(frozen=True)
class Limits:
    """The best that was measured, and every way it was tried.

    Args:
        read_gb_per_s: reading memory, 1e9 bytes per second.
        tflop_per_s: products of matrices in a dtype, 1e12 operations per second, a multiplication and an addition
            being two.
        ways: {"name", "value", "unit"} of each, from the median of its repeats.
    """

    read_gb_per_s: float
    tflop_per_s: float
    ways: list[Way] = field(default_factory=list)


def measure_limits(device: str, dtype: str, *, seconds: float = FULL_SECONDS) -> Limits:
    """Measure both limits; the better of several ways is the limit.

    Args:
        device: cpu, cuda, cuda:N or mps.
        dtype: of the products, one of barkfast.config.DTYPES.
        seconds: about how long it may take.

    Raises: InputError for an unknown device or dtype.
    """
    if dtype not in WIDER:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(WIDER)}")
    reads = measure_reading(device, seconds=seconds / 2)
    products = measure_products(device, dtype, seconds=seconds / 2)
    return Limits(best_of(reads), best_of(products), [*reads, *products])


def best_of(ways: list[Way]) -> float:
    """The largest value."""
    return max(way["value"] for way in ways)


def measure_reading(device: str, *, seconds: float = FULL_SECONDS / 2) -> list[Way]:
    """Reading memory that no cache holds, in GB/s: on a CPU by the engine's threads if it has them, else by torch."""
    name = resolve_device(device)
    threads, native = count_threads(), load_native() if name == "cpu" else None
    wanted = max(LEAST_BYTES, BYTES_PER_THREAD * threads) if name == "cpu" else GPU_BYTES
    scale = min(1.0, 2 * seconds / FULL_SECONDS)
    # A multiple of 64 KiB, and at most a quarter of what is free.
    size = max(2**20, int(min(wanted, free_memory(name) // 4) * scale)) // 2**16 * 2**16
    if native is None:
        return _torch_reads(torch.device(name), size, seconds)
    ways = []
    for pages in ("small", "large"):
        read = partial(native.time_reads, size, pages == "large", threads)
        # Filling the memory takes about as long as a few passes over it.
        times = read(_count_repeats(min(read(1)), seconds / 2, 6))
        ways.append(_rate(f"read by the engine's threads, {pages} pages", size, [time * 1e3 for time in times]))
    return ways


def _count_repeats(once: float, seconds: float, other: int) -> int:
    """How often work that takes `once` seconds fits into `seconds`, beside `other` passes that are not timed."""
    return max(3, min(MOST_REPEATS, int(seconds / max(once, 1e-6)) - other))


def _torch_reads(device: torch.device, size: int, seconds: float) -> list[Way]:
    """By torch's sum; on CUDA also by a product of a matrix and a vector, and by a copy, whose bytes count twice."""
    floats = torch.ones(size // 4, device=device)
    works: list[tuple[str, int, Callable[[], object]]] = [("read by torch.sum, float32", size, floats.sum)]
    if device.type == "cuda":
        halves = floats.view(torch.bfloat16)
        matrix, vector = halves.view(-1, 2**12), torch.ones(2**12, device=device, dtype=torch.bfloat16)
        target = torch.empty_like(floats)
        works += [
            ("read by torch.sum, bfloat16", size, lambda: halves.sum(dtype=torch.float32)),
            ("read by torch.mv, bfloat16", size, lambda: torch.mv(matrix, vector)),
            ("copy from device to device", 2 * size, lambda: target.copy_(floats)),
        ]
    with torch.inference_mode():
        return [_rate(name, n, repeat_times(device, work, seconds / len(works))) for name, n, work in works]


def measure_products(device: str, dtype: str, *, seconds: float = FULL_SECONDS / 2) -> list[Way]:
    """Products of matrices in a dtype, in TFLOP/s."""
    name = resolve_device(device)
    target, gpu = torch.device(name), name != "cpu"
    # Half as large on the smallest GPUs, so that there is room for three float32 matrices.
    scale = min(1.0, 2 * seconds / FULL_SECONDS) / (2 if gpu and free_memory(name) < 2**32 else 1)
    rows, cols, inputs = (max(64, int(n * scale) // 64 * 64) for n in (GPU_PRODUCT if gpu else CPU_PRODUCT))
    native = None if gpu else load_native()
    known = GPU_DTYPES.get(target.type, ENGINE_DTYPES["cpu"])
    wider = [wide for wide in WIDER[dtype] if str(wide).removeprefix("torch.") in known]
    share = seconds / (len(wider) + 1)
    ways = []

    def add(what: str, milliseconds: list[float]) -> None:
        value = 2 * rows * cols * inputs / summarize(milliseconds)["median"] / 1e9
        ways.append({"name": f"product by {what}", "value": round(value, 4), "unit": "TFLOP/s"})

    for wide in wider:
        # Random numbers: with zeros a chip draws less power and runs faster.
        x = torch.randn(inputs, cols, device=target).to(wide)
        w = torch.randn(rows, cols, device=target).to(wide).T
        out = torch.empty(inputs, rows, device=target, dtype=wide)
        with torch.inference_mode():
            times = repeat_times(target, partial(torch.mm, x, w, out=out), share)
        add(f"torch.mm, {str(wide).removeprefix('torch.')}", times)
    if native is not None and dtype in NATIVE_FORMATS:
        kind = NATIVE_FORMATS[dtype]
        multiply = partial(native.time_linear, kind, rows, cols, inputs, 0, False, count_threads())
        repeats = _count_repeats(min(multiply(1)["seconds"]), share, 3)
        add(f"the engine's kernel, {kind}", [time * 1e3 for time in multiply(repeats)["seconds"]])
    return ways


def repeat_times(
    device: torch.device, work: Callable[[], object], seconds: float, most: int = MOST_REPEATS
) -> list[float]:
    """Milliseconds of calls, as many as fit in `seconds` and `most` at most.

    The first may have to set something up, and counts only where there is time for no other.
    """
    first, *rest = wall_times(device, work, least=1, most=2, seconds=seconds)
    if not rest:
        return [first]
    return queue_times(device, [work] * min(most, _count_repeats(rest[0] / 1e3, seconds, 2)))


def _rate(name: str, n_bytes: int, milliseconds: list[float]) -> Way:
    return {"name": name, "value": round(n_bytes / summarize(milliseconds)["median"] / 1e6, 2), "unit": "GB/s"}


def check_batches(batches: Sequence[int]) -> None:
    """Raise InputError for a number of jobs that no engine takes at a time."""
    for batch in batches:
        if not 1 <= batch <= MOST_BATCH:
            raise InputError(f"a batch of {batch} jobs; expected 1 to {MOST_BATCH} together")


def time_batches(workload: Workload, batches: Sequence[int] = BATCHES) -> list[dict[str, Any]]:
    """Steps of the coarse network: a row per number of jobs that memory has room for.

    Returns: rows of {"batch", "ms_per_step": summary, "tokens_per_s"}.
    """
    workload = workload.resolve()
    device, dtype = workload.device, workload.dtype
    checkpoint = workload.open()
    weights = checkpoint.stage("coarse")
    config = weights.config
    each = 2 * config.n_layer * config.block_size * config.n_embd * (4 if dtype == "float32" else 2)
    rest = network_bytes(config, "float32") + network_bytes(config, dtype) + PROCESS_BYTES
    free = free_memory(device)
    fitting = [batch for batch in sorted(set(batches)) if rest + batch * each < free]
    if not fitting:
        return []
    placement = Placement(workload.engine, device, device, dtype, max(fitting))
    decoder = build_decoder("coarse", config, weights.tensors, placement, weights.content)
    prompt = min(PROMPT, config.block_size - STEPS)
    rows = []
    for batch in fitting:
        jobs = [step_job("coarse", checkpoint.layout, prompt, STEPS, workload.seed + i) for i in range(batch)]
        times = summarize(step_times(decoder, jobs))
        rows.append({"batch": batch, "ms_per_step": times, "tokens_per_s": batch / times["median"] * 1e3})
    return rows
