"""One matrix at a time, outside any network: with one row of inputs, as when decoding, and with a prompt's.

Every format's kernel beside torch's F.linear, which is oneDNN or MKL.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from barkfast.bench.measure import NATIVE_FORMATS, in_row, summarize, wall_times
from barkfast.weights.random import SIZES
from benchmarks.networks import require_native
from benchmarks.plan import Plan
from benchmarks.record import Recorder

TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Copies of a matrix that no cache holds together.
LEAST_BYTES = 2**28
SEMANTIC_HEAD = 10_048
# Rows of inputs, of columns and of weights.
PRODUCTS = ((887, 1024, 4096), (887, 768, 3072))


def run(plan: Plan, record: Recorder, part: str) -> None:
    """Each of torch's right behind the engine's."""
    for size in ("nano",) if plan.smoke else ("small", "large"):
        for name, (rows, cols) in shapes(size).items():
            for dtype in NATIVE_FORMATS:
                row = {"size": size, "matrix": name}
                for engine, time in engines(dtype):
                    work = partial(time_vector, plan, time, row, dtype, rows, cols)
                    record.measure(f"{size} {name} {rows} x {cols} {dtype} {engine}, {part} threads", work)
    for inputs, cols, rows in ((60, 64, 256),) if plan.smoke else PRODUCTS:
        for dtype in NATIVE_FORMATS:
            for engine, time in engines(dtype):
                work = partial(time_product, plan, time, dtype, inputs, rows, cols)
                record.measure(f"{inputs} x {cols} times {cols} x {rows} {dtype} {engine}, {part} threads", work)


def shapes(size: str) -> dict[str, tuple[int, int]]:
    """Rows and columns of what a decode step multiplies with."""
    width = SIZES[size][2]
    return {
        "qkv": (3 * width, width),
        "out": (width, width),
        "fc": (4 * width, width),
        "proj": (width, 4 * width),
        "head": (SEMANTIC_HEAD, width),
    }


# Bytes of one matrix, milliseconds per product of each pass over all copies, and those of only reading them.
Times = tuple[int, list[float], list[float]]


def engines(dtype: str) -> list[tuple[str, Callable[..., Times]]]:
    """Who multiplies in this dtype."""
    both: list[tuple[str, Callable[..., Times]]] = [("native", native_times)]
    return [*both, ("torch", torch_times)] if dtype in TORCH else both


def native_times(plan: Plan, dtype: str, rows: int, cols: int, inputs: int, least: int, repeats: int) -> Times:
    """The engine's, with reading in between."""
    # In small pages, as weights have them that are mapped from a file.
    found = require_native().time_linear(NATIVE_FORMATS[dtype], rows, cols, inputs, least, False, plan.threads, repeats)
    return found["bytes"], *([s * 1e3 for s in found[key]] for key in ("seconds", "read_seconds"))


def torch_times(plan: Plan, dtype: str, rows: int, cols: int, inputs: int, least: int, repeats: int) -> Times:
    """torch's; reading is not timed again."""
    torch.set_num_threads(plan.threads)
    size = rows * cols * TORCH[dtype].itemsize
    weights = torch.full((max(1, math.ceil(least / size)), rows, cols), 0.01, dtype=TORCH[dtype])
    x = torch.randn(inputs, cols, generator=torch.Generator().manual_seed(0)).to(TORCH[dtype])

    def work() -> None:
        for w in weights:
            F.linear(x, w)

    with torch.inference_mode():
        work()
        times = wall_times(torch.device("cpu"), work, least=min(3, repeats), most=repeats, seconds=0.5)
    return size, [time / len(weights) for time in times], []


def time_vector(
    plan: Plan, time: Callable[..., Times], row: dict[str, Any], dtype: str, rows: int, cols: int
) -> dict[str, Any]:
    """One row of inputs: limited by how fast the weights can be read."""
    least, repeats = (2**16, 2) if plan.smoke else (LEAST_BYTES, 15)
    size, times, reads = time(plan, dtype, rows, cols, 1, least, repeats)
    bytes_: dict[str, Any] = {"bytes": {"total": size}}
    if reads:
        bytes_["read_ms"] = round(summarize(reads)["median"], 6)
    return describe(plan, time, dtype, "vector", rows, cols) | row | bytes_ | in_row("ms", times, 6)


def time_product(
    plan: Plan, time: Callable[..., Times], dtype: str, inputs: int, rows: int, cols: int
) -> dict[str, Any]:
    """A prompt's rows of inputs: limited by arithmetic."""
    _, times, _ = time(plan, dtype, rows, cols, inputs, 0, 2 if plan.smoke else 15)
    rate = 2 * inputs * rows * cols / summarize(times)["median"] / 1e6
    row = {"inputs": inputs, "gflop_per_s": round(rate, 1)}
    return describe(plan, time, dtype, "product", rows, cols) | row | in_row("ms", times)


def describe(plan: Plan, time: Callable[..., Times], dtype: str, kind: str, rows: int, cols: int) -> dict[str, Any]:
    engine = "native" if time is native_times else "torch"
    return {"kind": kind, "engine": engine, "dtype": dtype, "threads": plan.threads, "rows": rows, "cols": cols}
