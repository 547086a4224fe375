"""How fast the machine reads memory: the ceiling of everything that decodes."""

from typing import Any

import torch

from barkfast.bench.measure import in_row, summarize, wall_times
from benchmarks.cpu.networks import require_native
from benchmarks.plan import Plan
from benchmarks.record import Recorder


def run(plan: Plan, record: Recorder, part: str) -> None:
    """Several ways; the best is the ceiling that shares refer to."""
    size, repeats = (2**20, 2) if plan.smoke else (2**29, 30)
    for pages in ("small", "large"):
        name = f"read by the engine's threads, {pages} pages, {part} threads"
        record.measure(name, lambda pages=pages: read(plan, size, repeats, pages == "large"))
    record.measure(f"read by torch.sum, {part} threads", lambda: read_by_torch(plan, size, repeats))


def read(plan: Plan, size: int, repeats: int, large_pages: bool) -> dict[str, Any]:
    """Adding up integers, a share of the memory per thread."""
    seconds = require_native().time_reads(size, large_pages, plan.threads, repeats)
    return describe(plan, size, [s * 1e3 for s in seconds])


def read_by_torch(plan: Plan, size: int, repeats: int) -> dict[str, Any]:
    """Adding up floats."""
    torch.set_num_threads(plan.threads)
    x = torch.ones(size // 4)
    times = wall_times(torch.device("cpu"), lambda: x.sum(), least=repeats + 1, most=repeats + 1, seconds=0)
    return describe(plan, size, times[1:])


def describe(plan: Plan, size: int, times: list[float]) -> dict[str, Any]:
    rate = size / summarize(times)["median"] / 1e6
    return {"threads": plan.threads, "bytes": {"total": size}, "gb_per_s": round(rate, 2)} | in_row("ms", times)
