"""Combination of the splits, output matrix and residual addition; each weight is read once for all rows."""

import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.decode_attention.triton import combine_heads
from barkfast_kernels.functions import load_fresh, pdl_launch, pdl_wait, prefetch_l2, running
from barkfast_kernels.launch import launch_linear
from barkfast_kernels.tiles import below, load_or, load_rows, multiply, row_tile
from barkfast_kernels.variant import DEFAULT, Variant


@triton.jit(do_not_specialize=["batch", "ahead_bytes"])
def _attention_out_kernel(
    x,  # (n_slots, N_HEAD * HEAD_DIM) float32
    partial,  # (batch_max, N_HEAD, SPLITS, HEAD_DIM) float32
    stats,  # (batch_max, N_HEAD, SPLITS, 2) float32
    weight,  # (N_HEAD * HEAD_DIM, N_HEAD * HEAD_DIM)
    scale,  # (N_HEAD * HEAD_DIM,) float32
    bias,  # (N_HEAD * HEAD_DIM,)
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    ahead,  # matrix to prefetch, see prefetch_l2
    ahead_bytes,
    batch,
    N_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SINGLE: tl.constexpr,
    TRIGGER_FIRST: tl.constexpr,
    ONE_TRIP: tl.constexpr,
    AHEAD: tl.constexpr,
    PDL: tl.constexpr,
):
    pdl_launch(PDL and TRIGGER_FIRST)
    N_EMBD: tl.constexpr = N_HEAD * HEAD_DIM
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_mask = below(n, N_EMBD, BLOCK_N)
    # Columns have the layout of the combined heads: BLOCK_D of them per head, with a gap where HEAD_DIM is smaller.
    k = tl.arange(0, BLOCK_H * BLOCK_D)
    k_mask = below(k // BLOCK_D, N_HEAD, BLOCK_H) & below(k % BLOCK_D, HEAD_DIM, BLOCK_D)
    column = k // BLOCK_D * HEAD_DIM + k % BLOCK_D
    tile = load_rows(weight, n, column, n_mask[:, None] & k_mask[None, :], N_EMBD)
    tile_scale = load_or(scale, n, n_mask, HAS_SCALE, 1.0)
    tile_bias = load_or(bias, n, n_mask, HAS_BIAS, 0.0)
    if ONE_TRIP:
        listed = tl.load(rows)
    prefetch_l2(ahead, ahead_bytes, AHEAD)
    pdl_launch(PDL and not TRIGGER_FIRST)
    pdl_wait(PDL)
    if not ONE_TRIP:
        listed = tl.load(rows)

    head = tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    head_mask = below(head, N_HEAD, BLOCK_H)
    d_mask = below(d, HEAD_DIM, BLOCK_D)
    for row in range(1 if SINGLE else batch):
        # Both are loaded together with the splits, not after them.
        target = x + tl.maximum(listed, 0) * N_EMBD + n
        residual = load_fresh(target, n_mask, ONE_TRIP)
        runs = running(slots, listed, ONE_TRIP) >= 0
        attended = combine_heads(partial, stats, row, head, d, head_mask, d_mask, N_HEAD, HEAD_DIM, SPLITS, ONE_TRIP)
        if not SINGLE:
            listed = tl.load(rows + tl.minimum(row + 1, batch - 1))
        if ONE_TRIP or runs:
            y = multiply(tile, tile_scale, tile_bias, tl.reshape(attended, (BLOCK_H * BLOCK_D,)))
            tl.store(target, residual + y, n_mask & runs)


def attention_out(
    x: Tensor,
    partial: Tensor,
    stats: Tensor,
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
    """x[slot] += W o + bias, where o is the attention output, combined from the splits of `decode_attention`.

    Args:
        x: (n_slots, n_embd) float32, changed in place.
        partial: (batch_max, n_head, splits, head_dim) float32.
        stats: (batch_max, n_head, splits, 2) float32.
        weight: (n_embd, n_embd); int8 with `scale` (n_embd,) float32.
        bias: (n_embd,).
        rows, slots: see `slots`.
        pdl, variant, ahead: see `launch`.
    """
    _, n_head, splits, head_dim = partial.shape
    block_h, block_d = triton.next_power_of_2(n_head), triton.next_power_of_2(head_dim)
    tile = row_tile(*weight.shape, x.device, block_k=block_h * block_d)
    tensors = {
        "x": x,
        "partial": partial,
        "stats": stats,
    }
    constexprs = {
        "N_HEAD": n_head,
        "HEAD_DIM": head_dim,
        "SPLITS": splits,
        "BLOCK_N": tile.block_n,
        "BLOCK_H": block_h,
        "BLOCK_D": block_d,
    }
    # There is about one program per multiprocessor: twice the warps halve what each thread loads of the splits.
    linear = weight, scale, bias
    how = {"num_warps": 8, "pdl": pdl, "variant": variant, "ahead": ahead}
    launch_linear(_attention_out_kernel, tile.programs, tensors, constexprs, linear, rows, slots, **how)
