"""Attention of one token per slot: one program per row, head and split of the positions."""

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.functions import (
    load_fresh,
    load_word,
    pdl_launch,
    pdl_wait,
    prefetch_l2,
    running,
    running_slot,
)
from barkfast_kernels.launch import INTERPRETED, launch
from barkfast_kernels.slots import POSITION
from barkfast_kernels.tiles import below
from barkfast_kernels.variant import DEFAULT, Variant


@triton.jit
def attend(k_tile, v_tile, q_row, held, top, total, sums, SCALE: tl.constexpr):
    """Add a tile of positions to a running softmax.

    Args:
        k_tile, v_tile: (BLOCK_T, BLOCK_D) in the storage dtype.
        q_row: (BLOCK_D,) float32.
        held: (BLOCK_T,) mask of the positions to add.
        top, total, sums: largest score so far, sum of 2**(score - top), sum of 2**(score - top) * value (BLOCK_D,).
    """
    scores = tl.sum(k_tile.to(tl.float32) * q_row[None, :], axis=1) * SCALE
    scores = tl.where(held, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores))
    # While no position was added, -inf - -inf would be NaN.
    finite_top = tl.where(new_top == float("-inf"), 0.0, new_top)
    decay = tl.exp2(top - finite_top)
    p = tl.exp2(scores - finite_top)
    total = total * decay + tl.sum(p)
    sums = sums * decay + tl.sum(p[:, None] * v_tile.to(tl.float32), axis=0)
    return new_top, total, sums


@triton.jit(do_not_specialize=["ahead_bytes"])
def _decode_attention_kernel(
    q,  # (batch_max, N_HEAD * HEAD_DIM) float32
    keys,  # (n_slots, N_HEAD, BLOCK_SIZE, HEAD_DIM)
    values,  # as keys
    partial,  # (batch_max, N_HEAD, SPLITS, HEAD_DIM) float32
    stats,  # (batch_max, N_HEAD, SPLITS, 2) float32
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    ahead,  # matrix to prefetch, see prefetch_l2
    ahead_bytes,
    N_HEAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SCALE: tl.constexpr,
    KV_AHEAD: tl.constexpr,
    TRIGGER_FIRST: tl.constexpr,
    ONE_TRIP: tl.constexpr,
    AHEAD: tl.constexpr,
    PDL: tl.constexpr,
):
    pdl_launch(PDL and TRIGGER_FIRST)
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    d = tl.arange(0, BLOCK_D)
    tile_t = tl.arange(0, BLOCK_T)
    d_mask = below(d, HEAD_DIM, BLOCK_D)
    if ONE_TRIP or KV_AHEAD:
        listed = tl.load(rows + row)
        cache = (tl.maximum(listed, 0).to(tl.int64) * N_HEAD + head) * (BLOCK_SIZE * HEAD_DIM)
    if KV_AHEAD:
        # This reads the slot's position of this step or of an earlier one; the cache holds all positions before it.
        # If it is of an earlier step, the splits may have other bounds, and what is loaded here is not used.
        known = tl.minimum(load_word(slots, tl.maximum(listed, 0), POSITION, True), BLOCK_SIZE)
        known_chunk = tl.cdiv(tl.minimum(known + 1, BLOCK_SIZE), SPLITS)
        known_t = split * known_chunk + tile_t
        known_end = tl.minimum((split + 1) * known_chunk, known)
        mask = (known_t < known_end)[:, None] & d_mask[None, :]
        known_at = cache + known_t[:, None] * HEAD_DIM + d[None, :]
        known_k = load_fresh(keys + known_at, mask, True)
        known_v = load_fresh(values + known_at, mask, True)
    prefetch_l2(ahead, ahead_bytes, AHEAD)
    pdl_launch(PDL and not TRIGGER_FIRST)
    pdl_wait(PDL)
    if not (ONE_TRIP or KV_AHEAD):
        listed = tl.load(rows + row)
        cache = (tl.maximum(listed, 0).to(tl.int64) * N_HEAD + head) * (BLOCK_SIZE * HEAD_DIM)
    # Loaded together with the status, not after it.
    length = tl.minimum(load_word(slots, tl.maximum(listed, 0), POSITION, ONE_TRIP) + 1, BLOCK_SIZE)
    runs = running(slots, listed, ONE_TRIP) >= 0
    q_at = q + (row * N_HEAD + head) * HEAD_DIM + d
    if ONE_TRIP or runs:
        chunk = tl.cdiv(length, SPLITS)
        end = tl.minimum((split + 1) * chunk, length)
        top = tl.full((), float("-inf"), tl.float32)
        total = tl.full((), 0.0, tl.float32)
        sums = tl.zeros((BLOCK_D,), tl.float32)
        if KV_AHEAD:
            q_row = load_fresh(q_at, d_mask, ONE_TRIP)
            # Issue all loads of the query before waiting for the position.
            tl.debug_barrier()
            t = split * chunk + tile_t
            missing = (t < end) & ((known_chunk != chunk) | (t >= known_end))
            at = cache + t[:, None] * HEAD_DIM + d[None, :]
            mask = missing[:, None] & d_mask[None, :]
            k_tile = tl.load(keys + at, mask, other=known_k, cache_modifier=".cg")
            v_tile = tl.load(values + at, mask, other=known_v, cache_modifier=".cg")
            top, total, sums = attend(k_tile, v_tile, q_row, t < end, top, total, sums, SCALE)
        else:
            for start in range(split * chunk, end, BLOCK_T):
                t = start + tile_t
                mask = (t < end)[:, None] & d_mask[None, :]
                at = cache + t[:, None] * HEAD_DIM + d[None, :]
                k_tile = load_fresh(keys + at, mask, ONE_TRIP)
                v_tile = load_fresh(values + at, mask, ONE_TRIP)
                # Load the query after a barrier, so that all key and value loads are issued before any is waited for.
                # Otherwise the assembler would save registers by loading the values after the scores are computed.
                tl.debug_barrier()
                q_row = load_fresh(q_at, d_mask, ONE_TRIP)
                top, total, sums = attend(k_tile, v_tile, q_row, t < end, top, total, sums, SCALE)
        out = (row * N_HEAD + head) * SPLITS + split
        tl.store(partial + out * HEAD_DIM + d, sums, d_mask & runs)
        tl.store(stats + out * 2, top, runs)
        tl.store(stats + out * 2 + 1, total, runs)


@triton.jit
def combine_heads(
    partial,  # (batch_max, N_HEAD, SPLITS, HEAD_DIM) float32
    stats,  # (batch_max, N_HEAD, SPLITS, 2) float32
    row,
    head,  # (BLOCK_H,)
    d,  # (BLOCK_D,)
    head_mask,
    d_mask,
    N_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    ONE_TRIP: tl.constexpr,
):
    """Attention output of `head`, (BLOCK_H, BLOCK_D) float32."""
    first = (row * N_HEAD + head) * SPLITS
    at = first[:, None] * HEAD_DIM + d[None, :]
    mask = head_mask[:, None] & d_mask[None, :]
    parts, tops, totals = (), (), ()
    for split in tl.static_range(SPLITS):
        parts = parts + (load_fresh(partial + at + split * HEAD_DIM, mask, ONE_TRIP),)
    # Load the stats after a barrier, so that all parts are requested before any is waited for; both numbers at once.
    tl.debug_barrier()
    pairs = stats.to(tl.pointer_type(tl.int64), bitcast=True) + first
    for split in tl.static_range(SPLITS):
        pair = load_fresh(pairs + split, head_mask, ONE_TRIP)
        tops = tops + (pair.to(tl.int32).to(tl.float32, bitcast=True),)
        totals = totals + ((pair >> 32).to(tl.int32).to(tl.float32, bitcast=True),)
    top = tops[0]
    for split in tl.static_range(1, SPLITS):
        top = tl.maximum(top, tops[split])
    # If all splits are empty, -inf - -inf would be NaN.
    top = tl.where(top == float("-inf"), 0.0, top)
    total = tl.zeros(head.shape, tl.float32)
    sums = tl.zeros((head.shape[0], d.shape[0]), tl.float32)
    for split in tl.static_range(SPLITS):
        share = tl.exp2(tops[split] - top)
        total += share * totals[split]
        sums += share[:, None] * parts[split]
    return sums / tl.where(total == 0.0, 1.0, total)[:, None]


@triton.jit
def _combine_splits_kernel(
    partial,  # (batch_max, N_HEAD, SPLITS, HEAD_DIM) float32
    stats,  # (batch_max, N_HEAD, SPLITS, 2) float32
    out,  # (batch_max, N_HEAD * HEAD_DIM)
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    N_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
):
    pdl_launch(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    head_mask = below(head, N_HEAD, BLOCK_H)
    d_mask = below(d, HEAD_DIM, BLOCK_D)
    if running_slot(rows, slots, row) >= 0:
        y = combine_heads(partial, stats, row, head, d, head_mask, d_mask, N_HEAD, HEAD_DIM, SPLITS, False)
        at = (row * N_HEAD + head)[:, None] * HEAD_DIM + d[None, :]
        tl.store(out + at, y.to(out.dtype.element_ty), head_mask[:, None] & d_mask[None, :])


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    partial: Tensor,
    stats: Tensor,
    rows: Tensor,
    slots: Tensor,
    *,
    pdl: bool,
    variant: Variant = DEFAULT,
    ahead: Tensor | None = None,
) -> None:
    """Attend to positions 0..POSITION of the row's slot, in as many even splits as `partial` has.

    Args:
        q: (batch_max, n_embd) float32.
        keys, values: (n_slots, n_head, block_size, head_dim).
        partial: (batch_max, n_head, splits, head_dim) float32: sums of 2**(score - max) * value.
        stats: (batch_max, n_head, splits, 2) float32: max and sum of 2**(score - max); -inf and 0 of an empty split.
        rows, slots: see `slots`.
        pdl, variant, ahead: see `launch`.
    """
    _, n_head, block_size, head_dim = keys.shape
    splits = partial.shape[2]
    block_d = triton.next_power_of_2(head_dim)
    # At Bark's sizes (128 positions of 64 channels) a whole split is one tile: its keys and values are requested at
    # once, without a second round trip to memory. In half precision 4 warps were 10% faster than 8 on an H100; in
    # float32 they would not have enough registers.
    num_warps = 4 if keys.element_size() == 2 else 8
    block_t = min(8192 // block_d, triton.next_power_of_2(triton.cdiv(block_size, splits)))
    args = {
        "q": q,
        "keys": keys,
        "values": values,
        "partial": partial,
        "stats": stats,
        "rows": rows,
        "slots": slots,
    }
    constexprs = {
        "N_HEAD": n_head,
        "BLOCK_SIZE": block_size,
        "HEAD_DIM": head_dim,
        "SPLITS": splits,
        "BLOCK_T": block_t,
        "BLOCK_D": block_d,
        "SCALE": math.log2(math.e) / math.sqrt(head_dim),
        # Without PDL there is no time to use before the wait; and only one tile can be loaded before it.
        "KV_AHEAD": variant.kv_ahead and (pdl or INTERPRETED) and block_t * splits >= block_size,
    }
    grid = (rows.shape[0], n_head, splits)
    how: dict[str, Any] = {"pdl": pdl, "variant": variant, "ahead": ahead}
    launch(_decode_attention_kernel, grid, args, constexprs, num_warps=num_warps, **how)


def combine_splits(partial: Tensor, stats: Tensor, out: Tensor, rows: Tensor, slots: Tensor, *, pdl: bool) -> None:
    """out[row] = attention output of the row, combined from the splits of `decode_attention`.

    Args:
        partial: (batch_max, n_head, splits, head_dim) float32.
        stats: (batch_max, n_head, splits, 2) float32.
        out: (batch_max, n_embd), rounded to its type.
        rows, slots: see `slots`.
        pdl: see `launch`.
    """
    _, n_head, splits, head_dim = partial.shape
    block_h = triton.next_power_of_2(n_head) if INTERPRETED else 4
    args = {"partial": partial, "stats": stats, "out": out, "rows": rows, "slots": slots}
    constexprs = {
        "N_HEAD": n_head,
        "HEAD_DIM": head_dim,
        "SPLITS": splits,
        "BLOCK_H": block_h,
        "BLOCK_D": triton.next_power_of_2(head_dim),
    }
    grid = (rows.shape[0], triton.cdiv(n_head, block_h))
    launch(_combine_splits_kernel, grid, args, constexprs, num_warps=2, pdl=pdl)
