"""Layer norm and the qkv matrix; each weight is read once for all rows."""

import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.functions import layer_norm_row, load_word, pdl_launch, pdl_wait, prefetch_l2
from barkfast_kernels.launch import launch_linear
from barkfast_kernels.slots import POSITION
from barkfast_kernels.tiles import below, fetch_row, load_or, load_rows, multiply, row_tile
from barkfast_kernels.variant import DEFAULT, Variant


@triton.jit(do_not_specialize=["batch", "ahead_bytes"])
def _norm_qkv_kernel(
    x,  # (n_slots, N_EMBD) float32
    norm_weight,  # (N_EMBD,)
    norm_bias,  # (N_EMBD,)
    weight,  # (3 * N_EMBD, N_EMBD)
    scale,  # (3 * N_EMBD,) float32
    bias,  # (3 * N_EMBD,)
    q,  # (batch_max, N_EMBD) float32
    keys,  # (n_slots, N_EMBD // HEAD_DIM, BLOCK_SIZE, HEAD_DIM)
    values,  # as keys
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    ahead,  # matrix to prefetch, see prefetch_l2
    ahead_bytes,
    batch,
    N_EMBD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
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
    n_mask = below(n, 3 * N_EMBD, BLOCK_N)
    k_mask = below(k, N_EMBD, BLOCK_K)
    tile = load_rows(weight, n, k, n_mask[:, None] & k_mask[None, :], N_EMBD)
    tile_scale = load_or(scale, n, n_mask, HAS_SCALE, 1.0)
    tile_bias = load_or(bias, n, n_mask, HAS_BIAS, 0.0)
    gain = load_or(norm_weight, k, k_mask, True, 1.0)
    offset = load_or(norm_bias, k, k_mask, HAS_NORM_BIAS, 0.0)
    if ONE_TRIP:
        listed = tl.load(rows)
    prefetch_l2(ahead, ahead_bytes, AHEAD)
    pdl_launch(PDL and not TRIGGER_FIRST)
    pdl_wait(PDL)
    if not ONE_TRIP:
        listed = tl.load(rows)

    part = n // N_EMBD
    channel = n % N_EMBD
    cached = (channel // HEAD_DIM) * (BLOCK_SIZE * HEAD_DIM) + channel % HEAD_DIM
    slot, x_row = fetch_row(x, listed, slots, k, k_mask, N_EMBD, ONE_TRIP)
    for row in range(1 if SINGLE else batch):
        position = load_word(slots, tl.maximum(listed, 0), POSITION, ONE_TRIP)
        after, x_after = slot, x_row
        if not SINGLE:
            listed = tl.load(rows + tl.minimum(row + 1, batch - 1))
            after, x_after = fetch_row(x, listed, slots, k, k_mask, N_EMBD, ONE_TRIP)
        if ONE_TRIP or slot >= 0:
            runs = slot >= 0
            h = layer_norm_row(x_row, gain, offset, k_mask, N_EMBD, HAS_NORM_BIAS)
            y = multiply(tile, tile_scale, tile_bias, h)
            cache = slot.to(tl.int64) * (N_EMBD * BLOCK_SIZE) + position * HEAD_DIM + cached
            cached_part = part * (position < BLOCK_SIZE).to(tl.int32)
            tl.store(q + row * N_EMBD + channel, y, n_mask & runs & (part == 0))
            tl.store(keys + cache, y.to(keys.dtype.element_ty), n_mask & runs & (cached_part == 1))
            tl.store(values + cache, y.to(values.dtype.element_ty), n_mask & runs & (cached_part == 2))
        slot, x_row = after, x_after


def norm_qkv(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: Tensor,
    slots: Tensor,
    *,
    pdl: bool,
    variant: Variant = DEFAULT,
    ahead: Tensor | None = None,
) -> None:
    """q[row] = query of LN(x[slot]); key and value are stored at the slot's POSITION, unless it is beyond the cache.

    Args:
        x: (n_slots, n_embd) float32.
        norm_weight, norm_bias: (n_embd,).
        weight: (3 * n_embd, n_embd); int8 with `scale` (3 * n_embd,) float32.
        bias: (3 * n_embd,).
        q: (batch_max, n_embd) float32.
        keys, values: (n_slots, n_head, block_size, head_dim).
        rows, slots: see `slots`.
        pdl, variant, ahead: see `launch`.
    """
    n_rows, n_embd = weight.shape
    _, _, block_size, head_dim = keys.shape
    tile = row_tile(n_rows, n_embd, x.device)
    tensors = {
        "x": x,
        "norm_weight": norm_weight,
        "norm_bias": norm_weight if norm_bias is None else norm_bias,
        "q": q,
        "keys": keys,
        "values": values,
    }
    constexprs = {
        "N_EMBD": n_embd,
        "BLOCK_SIZE": block_size,
        "HEAD_DIM": head_dim,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "HAS_NORM_BIAS": norm_bias is not None,
    }
    linear = weight, scale, bias
    how = {"num_warps": tile.num_warps, "pdl": pdl, "variant": variant, "ahead": ahead}
    launch_linear(_norm_qkv_kernel, tile.programs, tensors, constexprs, linear, rows, slots, **how)
