"""Where a decode step's time goes, kernel by kernel, beside the time that reading each one's bytes takes."""

import copy
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from barkfast.bark import Bark
from barkfast.bench.machine import count_threads
from barkfast.bench.measure import (
    best_of,
    candidates,
    measure_reading,
    queue_times,
    step_job,
    step_times,
    summarize,
    synchronize,
)
from barkfast.bench.roofline import decoder_step_bytes, kernel_bytes
from barkfast.bench.trace import export_events
from barkfast.config import Layout
from barkfast.errors import EngineError, InputError
from barkfast.jobs import Job
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.decoder import Decoder, RetainedSlots

if TYPE_CHECKING:
    from barkfast.runtime.cuda.decoder import CudaDecoder

# Steps of a job, half of them before the context that is asked for and half after it.
STEPS, LEAST_STEPS = 42, 12
# What of a step is in none of its parts.
REST = "all else"
NOTES = {
    "cpu": "each part is timed alone, with weights from memory; all else is norms, rounding and waiting",
    "cuda": "kernels are timed one after the other; in the step itself each may begin while the one before it ends",
    "torch": "operators have the shares of the step that they have under torch's profiler",
}
# The networks whose steps can be profiled, as `Bark` names its components.
NETWORKS = {"semantic": "text", "coarse": "coarse"}
# Operators that have a line of their own.
MOST_OPERATORS = 12
# Native formats by their number, and the parts of a layer by the checkpoint's names.
FORMATS = ("f32", "bf16", "int8", "int4")
MATRICES = {"attn.c_attn": "qkv", "attn.c_proj": "out", "mlp.c_fc": "fc", "mlp.c_proj": "proj"}
# Copies of a matrix that no cache holds together, and how often each is multiplied with.
LEAST_BYTES, REPEATS = 2**28, 10

Part = dict[str, Any]
Profile = dict[str, Any]


def profile_step(bark: Bark, stage: str, *, context: int | None = None, device: str, quick: bool = False) -> Profile:
    """Profile one stage's decode step on the engine that `bark` has for it.

    Args:
        stage: semantic or coarse.
        context: positions that the step attends to; None for what is usual in its stage.
        device: where the engine runs: cpu, cuda, cuda:N or mps.
        quick: with fewer repeats and less memory, and so less accurately.

    Returns: stage, dtype, engine, context; "us", microseconds of a whole step; "bytes" that it must read at least and
        "floor_us", the time for that at "read_gb_per_s"; "parts", each {"part", "count", "us", "bytes", "floor_us",
        "gb_per_s", "share"}, those that could be sped up most first, None for what is not known; "note" says how the
        parts were timed.

    Raises: InputError for an unknown stage, or a context that the network has no positions for.
    """
    if stage not in NETWORKS:
        raise InputError(f"stage is {stage!r}; expected {' or '.join(NETWORKS)}")
    with bark.components.using(NETWORKS[stage]) as decoder:
        return profile_decoder(decoder, bark.layout, stage, context=context, device=device, quick=quick)


def profile_decoder(
    decoder: Decoder,
    layout: Layout,
    stage: str,
    *,
    context: int | None = None,
    device: str,
    quick: bool = False,
    batch: int = 1,
) -> Profile:
    """`profile_step` of a decoder that runs no job; on the cuda engine of a step for a batch of jobs."""
    if context is None:
        context = usual_context(decoder, layout, stage)
    job = centred_job(decoder, layout, stage, context, quick=quick)
    if decoder.engine == "cuda":
        jobs = [job, *(centred_job(decoder, layout, stage, context, quick=quick, seed=i) for i in range(1, batch))]
        rate = measure_rate(device, quick=quick)
        return profile_cuda(cast("CudaDecoder", decoder), jobs, context=context, read_gb_per_s=rate, quick=quick)
    times = step_times(decoder, [job])
    if isinstance(decoder, CpuDecoder):
        parts, rate = time_parts(decoder, candidates(job), context, quick=quick)
        # Before the parts and after them: on a shared machine speed comes and goes.
        whole = summarize(times + step_times(decoder, [job]))["median"] * 1e3
    else:
        whole = summarize(times)["median"] * 1e3
        parts, rate = time_operators(decoder, job, torch.device(device), whole), measure_rate(device, quick=quick)
    return make_profile(decoder, stage, decoder.engine, [job], context, whole, parts, rate)


def measure_rate(device: str, *, quick: bool = False) -> float:
    """How fast the device reads, in GB/s."""
    return best_of(measure_reading(device, seconds=0.05 if quick else 1.5))


def usual_context(decoder: Decoder, layout: Layout, stage: str) -> int:
    """Positions in the middle of a long sentence, or of a coarse window with all of its history."""
    coarse = layout.coarse
    usual = coarse.n_slots + 1 + coarse.max_history + coarse.sliding_window // 2
    return min(2 * layout.semantic.n_slots if stage == "semantic" else usual, decoder.config.block_size - LEAST_STEPS)


def centred_job(
    decoder: Decoder, layout: Layout, stage: str, context: int, *, quick: bool = False, seed: int = 0
) -> Job:
    """A job whose steps attend to `context` positions on average; nothing ends it early."""
    size = decoder.config.block_size
    if not LEAST_STEPS // 2 < context <= size - LEAST_STEPS // 2:
        raise InputError(
            f"context is {context}; expected {LEAST_STEPS // 2 + 1} to {size - LEAST_STEPS // 2} positions, "
            f"for the {stage} network has {size}"
        )
    half = min((LEAST_STEPS if quick else STEPS) // 2, context - 1, size - context)
    return step_job(stage, layout, context - half, 2 * half, seed, may_stop=False)


def make_part(name: str, count: float, us: float, n_bytes: int | None = None, floor_us: float | None = None) -> Part:
    """A line: what it is, how often a step has it, and the microseconds and bytes of all of these together."""
    return {
        "part": name,
        "count": count,
        "us": round(us, 2),
        "bytes": n_bytes,
        "floor_us": None if floor_us is None else round(floor_us, 2),
        "gb_per_s": round(n_bytes / us / 1e3, 2) if n_bytes and us > 0 else None,
    }


def to_be_won(part: Part) -> float:
    """Microseconds beyond the floor; all of them where no bytes are known."""
    return part["us"] - (part["floor_us"] or 0.0)


def make_profile(
    decoder: Decoder,
    stage: str,
    engine: str,
    jobs: Sequence[Job],
    context: float,
    whole: float,
    parts: list[Part],
    rate: float,
) -> Profile:
    """The parts in order, with their shares and what is not among them, and the floor of the whole.

    Args:
        whole: microseconds of a step.
        rate: of reading, GB/s.
    """
    rest = whole - sum(part["us"] for part in parts)
    # Parts alone may take longer than together: caches keep small weights, kernels overlap.
    if rest > 0:
        parts = [*parts, make_part(REST, 1, rest)]
    ordered = sorted(parts, key=to_be_won, reverse=True)
    total = decoder_step_bytes(decoder, context=context, candidates=candidates(jobs[0]), batch=len(jobs)).total
    return {
        "stage": stage,
        "dtype": decoder.weight_dtype,
        "engine": engine,
        "batch": len(jobs),
        "context": context,
        "us": round(whole, 2),
        "bytes": total,
        "floor_us": round(total / rate / 1e3, 2),
        "read_gb_per_s": round(rate, 2),
        "parts": [part | {"share": round(part["us"] / whole, 4)} for part in ordered],
        "note": NOTES[engine],
    }


def time_parts(decoder: CpuDecoder, rows: int, context: int, *, quick: bool = False) -> tuple[list[Part], float]:
    """The cpu engine's kernels, each alone, with reading its bytes in turn; and how fast that was, in GB/s.

    Each kind of matrix in the formats that the layers have it in, `rows` of the head, one attention per layer.
    """
    native, threads, config = require_native(), count_threads(), decoder.config
    least, repeats = (2**16, 2) if quick else (LEAST_BYTES, REPEATS)
    kinds: Counter[tuple[str, int, int, int]] = Counter()
    for piece in decoder.packed.pieces:
        if piece.kind == "matrix":
            head = piece.name.startswith("lm_head")
            name = "head" if head else MATRICES[".".join(piece.name.split(".")[3:5])]
            kinds[name, piece.format, min(rows, piece.rows) if head else piece.rows, piece.cols] += 1
    parts, n_bytes, seconds = [], 0.0, 0.0
    for (name, stored, n_rows, cols), count in kinds.items():
        found = native.time_linear(FORMATS[stored], n_rows, cols, 1, least, False, threads, repeats)
        took, read = (summarize(found[key])["median"] for key in ("seconds", "read_seconds"))
        n_bytes, seconds = n_bytes + found["bytes"], seconds + read
        size = count * found["bytes"]
        parts.append(make_part(f"{name} {FORMATS[stored]}", count, count * took * 1e6, size, count * read * 1e6))
    rate = n_bytes / seconds / 1e9
    cache = {"float32": "f32", "bfloat16": "bf16"}.get(decoder.weight_dtype, "int8")
    found = native.time_attend(cache, config.n_head, config.head_dim, context, least, threads, repeats)
    size, took = config.n_layer * found["bytes"], config.n_layer * summarize(found["seconds"])["median"]
    parts.append(make_part(f"attention {cache}", config.n_layer, took * 1e6, size, size / rate / 1e3))
    return parts, rate


def time_operators(decoder: Decoder, job: Job, device: torch.device, whole: float) -> list[Part]:
    """The torch engine's operators, by their shares of the time under torch's profiler; their floors are not known.

    Args:
        whole: microseconds of a step without the profiler, which slows it down.
    """
    from torch.autograd import DeviceType
    from torch.profiler import profile

    steps = job.steps - 3
    slot = decoder.admit(job)
    try:
        for _ in range(2):
            decoder.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with profile() as profiler:
                start = time.perf_counter()
                for _ in range(steps):
                    decoder.step()
                synchronize(device)
                profiled = (time.perf_counter() - start) * 1e6
    finally:
        decoder.release(slot)
    clock = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    spent = {
        entry.key: (getattr(entry, clock), entry.count)
        for entry in profiler.key_averages()
        # Kernels have lines of their own beside those of the operators that launch them.
        if entry.device_type == DeviceType.CPU and getattr(entry, clock) > 0
    }
    longest = sorted(spent.items(), key=lambda item: item[1][0], reverse=True)[:MOST_OPERATORS]
    return [make_part(name, round(count / steps, 2), us / profiled * whole) for name, (us, count) in longest]


def profile_cuda(
    decoder: "CudaDecoder", jobs: Sequence[Job], *, context: float, read_gb_per_s: float, quick: bool = False
) -> Profile:
    """`profile_step` of a step for all `jobs` together, which have prompts and steps of the same length.

    Raises: EngineError if the profiler cannot see the device's kernels.
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile() as profiler:
            work()
            synchronize(device)
    return export_events(profiler)


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
