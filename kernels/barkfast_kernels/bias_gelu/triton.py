"""Bias and exact GELU, element by element."""

import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.functions import gelu
from barkfast_kernels.launch import INTERPRETED, launch


@triton.jit
def _bias_gelu_kernel(
    x,  # (T, N)
    bias,  # (N,)
    out,  # (T, N), out
    count,
    N: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements of the flattened `x`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < count).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + at % N).to(tl.float32)
    tl.store(out + at, gelu(value), mask=at < count)


def bias_gelu(x: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """gelu(x + bias), exact, computed in float32.

    Args:
        x: (T, n), contiguous.
        bias: (n,) or None.
        out: (T, n), contiguous; may be `x` itself.
    """
    block = 1 << 17 if INTERPRETED else 1024
    launch(
        _bias_gelu_kernel,
        (triton.cdiv(x.numel(), block),),
        {"x": x, "bias": x if bias is None else bias, "out": out, "count": x.numel()},
        {"N": x.shape[1], "HAS_BIAS": bias is not None, "BLOCK": block},
        num_warps=4,
    )
