"""The one way kernels are launched: on a GPU, in Triton's interpreter, or only written down."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

# Kernels are decorated when their module is imported, so this cannot change afterwards.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


@dataclass(frozen=True)
class Launch:
    """One launch: enough to compile the kernel without running it.

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
    """Within the block, launches are written down instead of run; tensors may be on the meta device."""
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
) -> None:
    """Launch `kernel` on the current stream.

    Args:
        pdl: for kernels with a PDL constexpr: whether this launch may begin before the one before it has ended
            (programmatic dependent launch, compute capability 9.0 and newer). None for kernels without one.
    """
    if pdl is not None:
        constexprs = constexprs | {"PDL": pdl and not INTERPRETED}
    if _record is not None:
        _record.append(Launch(kernel, grid, args, constexprs, num_warps, num_stages, bool(pdl)))
        return
    # Whether a*b+c is rounded once or twice must not depend on Triton's changing default.
    options: dict[str, Any] = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    if pdl and not INTERPRETED:
        options["launch_pdl"] = True
    kernel[grid](**args, **constexprs, **options)


def linear_args(weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run-time and compile-time arguments of a linear layer, by the names that kernels give them.

    What is absent is not read; the weight stands in its place.
    """
    args = {"weight": weight, "scale": weight if scale is None else scale, "bias": weight if bias is None else bias}
    return args, {"HAS_SCALE": scale is not None, "HAS_BIAS": bias is not None}


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is not below `n`; at least 16, which matrix instructions need."""
    return max(16, triton.next_power_of_2(n))


def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of `device`; an H100's 132 where there is no GPU to ask."""
    if device.type != "cuda":
        return 132
    return torch.cuda.get_device_properties(device).multi_processor_count
