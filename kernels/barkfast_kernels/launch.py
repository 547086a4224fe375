"""Launch of all Triton kernels: on a GPU, in Triton's interpreter, or only recorded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from barkfast_kernels.driver import prefer_shared
from barkfast_kernels.variant import Variant

# Kernels are decorated when their module is imported, so this cannot change afterwards.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


@dataclass(frozen=True)
class Launch:
    """One recorded launch: enough to compile the kernel without running it.

    Args:
        kernel: the jitted function.
        grid: programs per axis.
        args: the run-time arguments by name; a tensor stands for its dtype.
        constexprs: the compile-time arguments by name.
        num_warps, num_stages, pdl: launch options.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: dict[str, Any]
    constexprs: dict[str, Any]
    num_warps: int
    num_stages: int
    pdl: bool


_record: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Record launches within the block instead of running them; tensors may be on the meta device."""
    global _record
    before, _record = _record, []
    try:
        yield _record
    finally:
        _record = before


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    args: dict[str, Any],
    constexprs: dict[str, Any],
    *,
    num_warps: int = 4,
    num_stages: int = 2,
    pdl: bool | None = None,
    variant: Variant | None = None,
    ahead: Tensor | None = None,
) -> None:
    """Launch `kernel` on the current stream.

    Args:
        pdl: for kernels with a PDL constexpr: whether this launch may begin before the previous one has ended
            (programmatic dependent launch, compute capability 9.0 and newer). None for kernels without PDL.
        variant: for kernels of a decode step, which take TRIGGER_FIRST, ONE_TRIP and AHEAD.
        ahead: for the same kernels: weights of a later kernel, which this one prefetches into the L2 cache.
    """
    pdl = pdl if pdl is None else pdl and not INTERPRETED
    if pdl is not None:
        constexprs = constexprs | {"PDL": pdl}
    if variant is not None:
        args, chosen = _vary(variant, args, ahead if pdl else None, 32 * num_warps)
        constexprs = constexprs | chosen
    if _record is not None:
        _record.append(Launch(kernel, grid, args, constexprs, num_warps, num_stages, bool(pdl)))
        return
    # Whether a*b+c is rounded once or twice must not depend on Triton's changing default.
    options: dict[str, Any] = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    if pdl:
        options["launch_pdl"] = True
    # Without PDL no two kernels share a multiprocessor, so they need no common split of its memory.
    if pdl and variant is not None and variant.carveout is not None:
        kernel = _own(kernel, variant.carveout)
        prefer_shared(kernel[grid](**args, **constexprs, **options).function, variant.carveout)
    else:
        kernel[grid](**args, **constexprs, **options)


def _vary(
    variant: Variant, args: dict[str, Any], ahead: Tensor | None, threads: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add a variant's arguments and constants; without `ahead` the first tensor takes its place and is not read."""
    matrix = next(iter(args.values())) if ahead is None else ahead
    n_bytes = 0 if ahead is None else ahead.numel() * ahead.element_size()
    chosen = {
        "TRIGGER_FIRST": variant.trigger_first,
        "ONE_TRIP": variant.one_trip,
        "AHEAD": 0 if ahead is None else threads,
    }
    return args | {"ahead": matrix, "ahead_bytes": n_bytes}, chosen


@cache
def _own(kernel: Any, carveout: int) -> Any:
    """A copy of the kernel with its own device handle, because the carve-out is a setting of the handle."""
    return type(kernel)(kernel.fn, do_not_specialize=kernel.do_not_specialize)


def linear_args(weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run-time and compile-time arguments of a linear layer, by the kernels' parameter names.

    The weight takes the place of an absent tensor, which the kernel does not read.
    """
    args = {"weight": weight, "scale": weight if scale is None else scale, "bias": weight if bias is None else bias}
    return args, {"HAS_SCALE": scale is not None, "HAS_BIAS": bias is not None}


def launch_linear(
    kernel: Any,
    programs: int,
    tensors: dict[str, Tensor],
    constexprs: dict[str, Any],
    linear: tuple[Tensor, Tensor | None, Tensor | None],
    rows: Tensor,
    slots: Tensor,
    **options: Any,
) -> None:
    """Launch a decode step's kernel that multiplies the running slots' vectors with a matrix.

    Args:
        tensors: by name, besides those below.
        linear: weight, scale and bias.
        rows, slots: see `slots`.
        options: num_warps, pdl, variant, ahead of `launch`.
    """
    matrix, present = linear_args(*linear)
    batch = rows.shape[0]
    args = {**tensors, **matrix, "rows": rows, "slots": slots, "batch": batch}
    launch(kernel, (programs,), args, {**constexprs, **present, "SINGLE": batch == 1}, **options)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is not below `n`; at least 16, which matrix instructions need."""
    return max(16, triton.next_power_of_2(n))


def multiprocessors(device: torch.device) -> int:
    """Number of streaming multiprocessors of `device`; without a GPU the 132 of an H100."""
    if device.type != "cuda":
        return 132
    return torch.cuda.get_device_properties(device).multi_processor_count
