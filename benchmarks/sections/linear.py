"""One matrix at a time, outside any network, with one row of inputs as when decoding: every format's kernel."""

from functools import partial
from typing import Any

from barkfast.bench.measure import NATIVE_FORMATS, in_row, summarize
from barkfast.runtime.cpu.packing import require_native
from barkfast.weights.random import SIZES
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# Copies of a matrix that no cache holds together.
LEAST_BYTES = 2**28
SEMANTIC_HEAD = 10_048


def run(plan: Plan, record: Recorder, part: str) -> None:
    for size in ("nano",) if plan.smoke else ("small", "large"):
        for name, (rows, cols) in shapes(size).items():
            for dtype in NATIVE_FORMATS:
                work = partial(time_vector, plan, size, name, dtype, rows, cols)
                record.measure(f"{size} {name} {rows} x {cols} {dtype} native, {part} threads", work)


def shapes(size: str) -> dict[str, tuple[int, int]]:
    """Rows and columns of what a decode step multiplies with."""
    width = SIZES[size][2]
    layer = {"qkv": (3 * width, width), "out": (width, width), "fc": (4 * width, width), "proj": (width, 4 * width)}
    return layer | {"head": (SEMANTIC_HEAD, width)}


def time_vector(plan: Plan, size: str, matrix: str, dtype: str, rows: int, cols: int) -> dict[str, Any]:
    """Milliseconds per product of each pass over all copies, in turn with only reading them, which limits it."""
    least, repeats = (2**16, 2) if plan.smoke else (LEAST_BYTES, 15)
    # In small pages, as weights have them that are mapped from a file.
    found = require_native().time_linear(NATIVE_FORMATS[dtype], rows, cols, 1, least, False, plan.threads, repeats)
    return {
        **{"kind": "vector", "engine": "native", "dtype": dtype, "threads": plan.threads, "rows": rows, "cols": cols},
        **{"size": size, "matrix": matrix, "bytes": {"total": found["bytes"]}},
        "read_ms": round(summarize(found["read_seconds"])["median"] * 1e3, 6),
    } | in_row("ms", [seconds * 1e3 for seconds in found["seconds"]], 6)
