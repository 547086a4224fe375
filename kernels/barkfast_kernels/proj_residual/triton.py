"""The proj matrix and the residual addition; each weight is read once for all rows."""

import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.functions import load_fresh, pdl_launch, pdl_wait, prefetch_l2, running
from barkfast_kernels.launch import launch_linear
from barkfast_kernels.tiles import below, load_or, load_rows, multiply, row_tile
from barkfast_kernels.variant import DEFAULT, Variant


@triton.jit(do_not_specialize=["batch", "ahead_bytes"])
def _proj_residual_kernel(
    x,  # (n_slots, N) float32
    hidden,  # (batch_max, K)
    weight,  # (N, K)
    scale,  # (N,) float32
    bias,  # (N,)
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    ahead,  # matrix to prefetch, see prefetch_l2
    ahead_bytes,
    batch,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SINGLE: tl.constexpr,
    TRIGGER_FIRST: tl.constexpr,
    ONE_TRIP: tl.constexpr,
    AHEAD: tl.constexpr,
    PDL: tl.constexpr,
):
    pdl_launch(PDL and TRIGGER_FIRST)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    n_mask = below(n, N, BLOCK_N)
    k_mask = below(k, K, BLOCK_K)
    tile = load_rows(weight, n, k, n_mask[:, None] & k_mask[None, :], K)
    tile_scale = load_or(scale, n, n_mask, HAS_SCALE, 1.0)
    tile_bias = load_or(bias, n, n_mask, HAS_BIAS, 0.0)
    if ONE_TRIP:
        listed = tl.load(rows)
    prefetch_l2(ahead, ahead_bytes, AHEAD)
    pdl_launch(PDL and not TRIGGER_FIRST)
    pdl_wait(PDL)
    if not ONE_TRIP:
        listed = tl.load(rows)

    h_row = load_fresh(hidden + k, k_mask, ONE_TRIP)
    for row in range(1 if SINGLE else batch):
        h_after = h_row
        if not SINGLE:
            h_after = load_fresh(hidden + tl.minimum(row + 1, batch - 1) * K + k, k_mask, ONE_TRIP)
        # Loaded together with the status, not after it.
        target = x + tl.maximum(listed, 0) * N + n
        residual = load_fresh(target, n_mask, ONE_TRIP)
        runs = running(slots, listed, ONE_TRIP) >= 0
        if not SINGLE:
            listed = tl.load(rows + tl.minimum(row + 1, batch - 1))
        if ONE_TRIP or runs:
            y = multiply(tile, tile_scale, tile_bias, h_row.to(tl.float32))
            tl.store(target, residual + y, n_mask & runs)
        h_row = h_after


def proj_residual(
    x: Tensor,
    hidden: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    rows: Tensor,
    slots: Tensor,
    *,
    pdl: bool,
    variant: Variant = DEFAULT,
    ahead: Tensor | None = None,
) -> None:
    """x[slot] += W hidden[row] + bias.

    Args:
        x: (n_slots, n_embd) float32, changed in place.
        hidden: (batch_max, 4 * n_embd).
        weight: (n_embd, 4 * n_embd); int8 with `scale` (n_embd,) float32.
        bias: (n_embd,).
        rows, slots: see `slots`.
        pdl, variant, ahead: see `launch`.
    """
    n_rows, n_columns = weight.shape
    tile = row_tile(n_rows, n_columns, x.device)
    tensors = {
        "x": x,
        "hidden": hidden,
    }
    constexprs = {
        "N": n_rows,
        "K": n_columns,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
    }
    linear = weight, scale, bias
    how = {"num_warps": tile.num_warps, "pdl": pdl, "variant": variant, "ahead": ahead}
    launch_linear(_proj_residual_kernel, tile.programs, tensors, constexprs, linear, rows, slots, **how)
