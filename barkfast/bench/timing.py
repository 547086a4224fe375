"""Time on a device: events between queued work on CUDA, the clock around it elsewhere."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Median, 95th percentile (the smallest value that 95 % do not exceed), extremes and count of one or more."""
    ordered = sorted(values)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return {
        "median": middle,
        "p95": ordered[math.ceil(0.95 * n) - 1],
        "min": ordered[0],
        "max": ordered[-1],
        "n": n,
    }


def in_row(name: str, values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """`summarize` as entries of a row: name_median, name_p95, ..."""
    return {
        f"{name}_{key}": round(value, digits) if isinstance(value, float) else value
        for key, value in summarize(values).items()
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def queue_times(device: torch.device, works: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds between the ends of `works`, queued one behind the other; only CUDA does not wait in between."""
    if device.type != "cuda":
        times = []
        for work in works:
            start = time.perf_counter()
            work()
            synchronize(device)
            times.append((time.perf_counter() - start) * 1e3)
        return times
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
