"""Where a decode step's time goes, kernel by kernel, beside the time that reading each one's bytes takes."""

import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, cast

import torch

from barkfast.bark import Bark
from barkfast.bench.limits import best_of, measure_reading
from barkfast.bench.processor import count_threads
from barkfast.bench.profile_parts import Part, Profile, centred_job, make_part, make_profile, usual_context
from barkfast.bench.steps import candidates, step_times
from barkfast.bench.timing import summarize, synchronize
from barkfast.config import Layout
from barkfast.errors import InputError
from barkfast.jobs import Job
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.decoder import Decoder

if TYPE_CHECKING:
    from barkfast.runtime.cuda.decoder import CudaDecoder

# The networks whose steps can be looked at, as `Bark` names their parts.
NETWORKS = {"semantic": "text", "coarse": "coarse"}
# Operators that have a line of their own.
MOST_OPERATORS = 12
# Native formats by their number, and the parts of a layer by the checkpoint's names.
FORMATS = ("f32", "bf16", "int8", "int4")
MATRICES = {"attn.c_attn": "qkv", "attn.c_proj": "out", "mlp.c_fc": "fc", "mlp.c_proj": "proj"}
# Copies of a matrix that no cache holds together, and how often each is multiplied with.
LEAST_BYTES, REPEATS = 2**28, 10


def profile_step(bark: Bark, stage: str, *, context: int | None = None, device: str, quick: bool = False) -> Profile:
    """Profile one stage's decode step on the engine that `bark` has for it.

    Args:
        stage: semantic or coarse.
        context: positions that the step attends to; None for what is usual in its stage.
        device: where the engine runs: cpu, cuda, cuda:N or mps.
        quick: with fewer repeats and less memory, and so less truly.
    Returns: stage, dtype, engine, context; "us", microseconds of a whole step; "bytes" that it must read at the least
        and "floor_us", the time for that at "read_gb_per_s"; "parts", each {"part", "count", "us", "bytes",
        "floor_us", "gb_per_s", "share"}, those with the most time to be won first, None for what is not known;
        "note" says how the parts were timed.
    Errors: InputError for an unknown stage, or a context that the network has no positions for.
    """
    if stage not in NETWORKS:
        raise InputError(f"stage is {stage!r}; expected {' or '.join(NETWORKS)}")
    with bark.components.using(NETWORKS[stage]) as decoder:
        return profile_decoder(decoder, bark.layout, stage, context=context, device=device, quick=quick)


def profile_decoder(
    decoder: Decoder, layout: Layout, stage: str, *, context: int | None = None, device: str, quick: bool = False
) -> Profile:
    """`profile_step` of a decoder that no job is seated in."""
    if context is None:
        context = usual_context(decoder, layout, stage)
    job = centred_job(decoder, layout, stage, context, quick=quick)
    if decoder.engine == "cuda":
        from barkfast.bench.profile_cuda import profile_cuda

        rate = measure_rate(device, quick=quick)
        return profile_cuda(cast("CudaDecoder", decoder), [job], context=context, read_gb_per_s=rate, quick=quick)
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
