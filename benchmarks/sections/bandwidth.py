"""The device's own ceilings: how fast it reads, copies and multiplies."""

from typing import Any

import torch
import triton
import triton.language as tl

from barkfast.bench.measure import in_row, queue_times, summarize
from benchmarks.plan import Plan
from benchmarks.record import Recorder

PROGRAMS_PER_SM = 8


@triton.jit
def _read_kernel(x, out, N, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * STEPS * BLOCK
    column = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.int32)
    for step in range(STEPS):
        i = start + step * BLOCK + column
        total += tl.load(x + i, mask=i < N, other=0)
    tl.store(out + tl.program_id(0), tl.sum(total))


def run(plan: Plan, record: Recorder) -> None:
    """Reading is what a decode step does; the better of two ways of it is the ceiling that shares refer to."""
    record.measure("read by a Triton kernel", lambda: read(plan, by_triton=True))
    record.measure("read by torch.sum", lambda: read(plan, by_triton=False))
    record.measure("copy from device to device", lambda: copy(plan))
    record.measure("bfloat16 matrix product", lambda: multiply(plan))


def repeats(plan: Plan) -> int:
    return 1 if plan.smoke else 30


def read(plan: Plan, *, by_triton: bool) -> dict[str, Any]:
    """A reduction of 4 GiB that writes next to nothing."""
    n = 2**16 if plan.smoke else 2**30
    x = torch.randint(-100, 100, (n,), dtype=torch.int32, device=plan.device)
    block, steps = 4096, 16
    programs = triton.cdiv(n, block * steps)
    sums = torch.full((programs,), 2**31 - 1, dtype=torch.int32, device=plan.device)

    def work() -> None:
        if by_triton:
            _read_kernel[(programs,)](x, sums, n, STEPS=steps, BLOCK=block, num_warps=8)
        else:
            floats.sum(dtype=torch.float32)

    floats = x.view(torch.bfloat16) if not by_triton else x
    work()
    if by_triton and int(sums.sum(dtype=torch.int64)) != int(x.sum(dtype=torch.int64)):
        raise RuntimeError("the sums of what was read are wrong")
    times = queue_times(plan.device, [work] * repeats(plan))
    return {"bytes": 4 * n, "gb_per_s": _rate(4 * n, times)} | in_row("ms", times)


def copy(plan: Plan) -> dict[str, Any]:
    """Bytes read plus bytes written."""
    n = 2**16 if plan.smoke else 2**31
    x = torch.randint(0, 100, (n,), dtype=torch.uint8, device=plan.device)
    y = torch.empty_like(x)
    y.copy_(x)
    times = queue_times(plan.device, [lambda: y.copy_(x)] * repeats(plan))
    return {"bytes": 2 * n, "gb_per_s": _rate(2 * n, times)} | in_row("ms", times)


def multiply(plan: Plan) -> dict[str, Any]:
    """On random data: on zeros the chip would draw less power and run faster."""
    n = 64 if plan.smoke else 8192
    x, y = torch.randn(2, n, n, device=plan.device).to(torch.bfloat16)
    out = x @ y
    times = queue_times(plan.device, [lambda: torch.mm(x, y, out=out)] * repeats(plan))
    return {"tflop_per_s": round(2 * n**3 / summarize(times)["median"] / 1e9, 1)} | in_row("ms", times)


def _rate(n_bytes: int, times: list[float]) -> float:
    return round(n_bytes / summarize(times)["median"] / 1e6, 1)
