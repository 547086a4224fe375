"""How fast this machine reads memory and multiplies matrices: the ceilings that shares refer to, measured here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from barkfast.bench.environment import device_memory, memory_available
from barkfast.bench.processor import count_threads
from barkfast.bench.timing import queue_times, summarize, wall_times
from barkfast.errors import InputError
from barkfast.native import load_native
from barkfast.runtime.select import ENGINE_DTYPES, resolve_device

# Bytes that are read: per thread of a CPU more than its share of any cache, and at least so many; of a GPU.
BYTES_PER_THREAD, LEAST_BYTES, GPU_BYTES = 2**26, 2**28, 2**31
# (rows, columns, inputs) of the products: a wide layer over a window's frames, and what fills a large GPU.
CPU_PRODUCT, GPU_PRODUCT = (4096, 1024, 1024), (8192, 8192, 8192)
# With less time than this, less memory is read and smaller matrices are multiplied, and so less truly.
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
# What torch multiplies in besides: CPUs and Apple's GPUs have no use for some.
GPU_DTYPES = {"cuda": ("float32", "bfloat16", "float16"), "mps": ("float32", "float16")}
Way = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """The best that was measured, and every way it was tried.

    Args:
        read_gb_per_s: reading memory, 1e9 bytes per second.
        tflop_per_s: products of matrices in a dtype, 1e12 operations per second, a multiplication and an addition
            being two.
        ways: {"name", "value", "unit"} of each, the median of its repeats.
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
    Errors: InputError for an unknown device or dtype.
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
    """Reading memory that no cache holds, in GB/s."""
    name = resolve_device(device)
    target = torch.device(name)
    scale = min(1.0, 2 * seconds / FULL_SECONDS)
    if target.type == "cpu":
        threads = count_threads()
        size = max(LEAST_BYTES, BYTES_PER_THREAD * threads)
        size = _share(size, memory_available(), scale)
        native = load_native()
        if native is not None:
            return [
                _native_reads(native, size, large_pages, threads, seconds / 2, kind)
                for large_pages, kind in ((False, "small"), (True, "large"))
            ]
    else:
        size = _share(GPU_BYTES, device_memory(name) or GPU_BYTES, scale)
    return _torch_reads(target, size, seconds)


def _share(wanted: int, free: int, scale: float) -> int:
    """Bytes to read, a multiple of 64 KiB: as many as wanted, a quarter of what is free at most."""
    return max(2**20, int(min(wanted, free // 4) * scale)) // 2**16 * 2**16


def _native_reads(native: Any, size: int, large_pages: bool, threads: int, seconds: float, pages: str) -> Way:
    """By the engine's threads, each a share of the memory."""
    once = min(native.time_reads(size, large_pages, threads, 1))
    # Filling the memory takes about as long as a few passes over it.
    repeats = max(3, min(MOST_REPEATS, int(seconds / max(once, 1e-6)) - 6))
    times = native.time_reads(size, large_pages, threads, repeats)
    return _rate(f"read by the engine's threads, {pages} pages", size, [time * 1e3 for time in times])


def _torch_reads(device: torch.device, size: int, seconds: float) -> list[Way]:
    """By torch's sum; on CUDA also by a product of a matrix and a vector, and by a copy, whose bytes count twice."""
    works: list[tuple[str, int, Callable[[], object]]] = []
    floats = torch.ones(size // 4, device=device)
    works.append(("read by torch.sum, float32", size, lambda: floats.sum()))
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
        return [_rate(name, n, _repeat(device, work, seconds / len(works))) for name, n, work in works]


def measure_products(device: str, dtype: str, *, seconds: float = FULL_SECONDS / 2) -> list[Way]:
    """Products of matrices in a dtype, in TFLOP/s."""
    name = resolve_device(device)
    target = torch.device(name)
    scale = min(1.0, 2 * seconds / FULL_SECONDS)
    gpu = target.type != "cpu"
    # So that the smallest GPUs have room for three float32 matrices.
    scale /= 2 if gpu and (device_memory(name) or 0) < 2**32 else 1
    rows, cols, inputs = (max(64, int(n * scale) // 64 * 64) for n in (GPU_PRODUCT if gpu else CPU_PRODUCT))
    native = None if gpu else load_native()
    known = GPU_DTYPES.get(target.type, ENGINE_DTYPES["cpu"])
    torches = [wide for wide in WIDER[dtype] if str(wide).removeprefix("torch.") in known]
    share = seconds / (len(torches) + 1)
    ways = [_torch_products(target, wide, rows, cols, inputs, share) for wide in torches]
    if native is not None and dtype in NATIVE_FORMATS:
        ways.append(_native_products(native, NATIVE_FORMATS[dtype], rows, cols, inputs, share))
    return ways


def _torch_products(device: torch.device, dtype: torch.dtype, rows: int, cols: int, inputs: int, seconds: float) -> Way:
    """On random numbers: on zeros a chip would draw less power and run faster."""
    x = torch.randn(inputs, cols, device=device).to(dtype)
    w = torch.randn(rows, cols, device=device).to(dtype).T
    out = torch.empty(inputs, rows, device=device, dtype=dtype)
    with torch.inference_mode():
        times = _repeat(device, lambda: torch.mm(x, w, out=out), seconds)
    name = str(dtype).removeprefix("torch.")
    return _speed(f"product by torch.mm, {name}", rows, cols, inputs, summarize(times)["median"])


def _native_products(native: Any, kind: str, rows: int, cols: int, inputs: int, seconds: float) -> Way:
    def passes(repeats: int) -> list[float]:
        return native.time_linear(kind, rows, cols, inputs, 0, False, count_threads(), repeats)["seconds"]

    repeats = max(3, min(MOST_REPEATS, int(seconds / max(min(passes(1)), 1e-6)) - 3))
    milliseconds = summarize(passes(repeats))["median"] * 1e3
    return _speed(f"product by the engine's kernel, {kind}", rows, cols, inputs, milliseconds)


def _repeat(device: torch.device, work: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of each call but the first, which may have to set something up; of that one where it is too slow."""
    first, *rest = wall_times(device, work, least=1, most=2, seconds=seconds)
    if not rest:
        return [first]
    repeats = max(3, min(MOST_REPEATS, int(seconds * 1e3 / max(rest[0], 1e-3)) - 2))
    return queue_times(device, [work] * repeats)


def _rate(name: str, n_bytes: int, milliseconds: list[float]) -> Way:
    return {"name": name, "value": round(n_bytes / summarize(milliseconds)["median"] / 1e6, 2), "unit": "GB/s"}


def _speed(name: str, rows: int, cols: int, inputs: int, milliseconds: float) -> Way:
    return {"name": name, "value": round(2 * rows * cols * inputs / milliseconds / 1e9, 4), "unit": "TFLOP/s"}
