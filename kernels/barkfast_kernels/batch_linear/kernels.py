"""The kernels of batch_linear: each calls `rows_times_batch` and stores what it makes of the product."""

import triton
import triton.language as tl

from barkfast_kernels.batch_linear.tile import prefetch_rows, rows_times_batch, running_slots
from barkfast_kernels.functions import gelu, pdl_launch, pdl_wait
from barkfast_kernels.norm_head.triton import load_draw, store_candidates
from barkfast_kernels.slots import DRAWN, PHASE, POSITION, WORDS


@triton.jit(do_not_specialize=["batch"])
def linear_qkv_kernel(
    h,  # (batch, K) storage dtype
    weight,  # (3 * K, K)
    scale,  # (3 * K,) float32
    bias,  # (3 * K,)
    q,  # (batch, K) float32, out
    keys,  # (n_slots, n_head, block_size, HEAD_DIM), out
    values,  # (n_slots, n_head, block_size, HEAD_DIM), out
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    batch,
    block_size,
    K: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_B: tl.constexpr,
    PDL: tl.constexpr,
):
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(column, 3 * K - 1)
    prefetch_rows(weight, row, 0, K, K, PDL)
    if HAS_SCALE:
        factor = tl.load(scale + row)
    if HAS_BIAS:
        added = tl.load(bias + row).to(tl.float32)
    pdl_launch(PDL)
    pdl_wait(PDL)
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    slot = running_slots(rows, slots, b, batch)
    acc = rows_times_batch(weight, row, h, b, batch, 0, K, K, K % BLOCK_K == 0, BLOCK_K)
    if HAS_SCALE:
        acc *= factor[:, None]
    if HAS_BIAS:
        acc += added[:, None]

    part = (column // K)[:, None]
    within = (column % K)[:, None]
    running = (slot >= 0)[None, :]
    tl.store(q + b[None, :] * K + within, acc, mask=running & (part == 0))
    position = tl.load(slots + slot * WORDS + POSITION, mask=slot >= 0, other=0)[None, :]
    cached = running & (position < block_size)
    head = slot.to(tl.int64)[None, :] * (K // HEAD_DIM) + within // HEAD_DIM
    at = (head * block_size + position) * HEAD_DIM + within % HEAD_DIM
    tl.store(keys + at, acc, mask=cached & (part == 1))
    tl.store(values + at, acc, mask=cached & (part == 2))


@triton.jit(do_not_specialize=["batch"])
def linear_gelu_kernel(
    h,  # (batch, K) storage dtype
    weight,  # (N, K)
    scale,  # (N,) float32
    bias,  # (N,)
    out,  # (batch, N) storage dtype, out
    batch,
    N: tl.constexpr,
    K: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_B: tl.constexpr,
    PDL: tl.constexpr,
):
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(column, N - 1)
    prefetch_rows(weight, row, 0, K, K, PDL)
    if HAS_SCALE:
        factor = tl.load(scale + row)
    if HAS_BIAS:
        added = tl.load(bias + row).to(tl.float32)
    pdl_launch(PDL)
    pdl_wait(PDL)
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    acc = rows_times_batch(weight, row, h, b, batch, 0, K, K, K % BLOCK_K == 0, BLOCK_K)
    if HAS_SCALE:
        acc *= factor[:, None]
    if HAS_BIAS:
        acc += added[:, None]
    tl.store(out + b[None, :] * N + column[:, None], gelu(acc), mask=(b < batch)[None, :] & (column < N)[:, None])


@triton.jit(do_not_specialize=["batch", "out_rows"])
def linear_partial_kernel(
    h,  # (batch, K) storage dtype
    weight,  # (N, K)
    scale,  # (N,) float32
    out,  # (splits, out_rows, N) float32, out
    batch,
    out_rows,
    N: tl.constexpr,
    K: tl.constexpr,
    SHARE: tl.constexpr,
    EVEN: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_B: tl.constexpr,
    PDL: tl.constexpr,
):
    """Program (tile, split, part of the batch): sums columns split * SHARE <= k < (split + 1) * SHARE of its rows."""
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    row = tl.minimum(column, N - 1)
    if EVEN:
        prefetch_rows(weight, row, split * SHARE, K, SHARE, PDL)
    if HAS_SCALE:
        factor = tl.load(scale + row)
    pdl_launch(PDL)
    pdl_wait(PDL)
    b = tl.program_id(2) * BLOCK_B + tl.arange(0, BLOCK_B)
    acc = rows_times_batch(weight, row, h, b, batch, split * SHARE, K, SHARE, EVEN, BLOCK_K)
    if HAS_SCALE:
        acc *= factor[:, None]
    at = (split * out_rows + b)[None, :] * N + column[:, None]
    tl.store(out + at, acc, mask=(b < batch)[None, :] & (column < N)[:, None])


@triton.jit(do_not_specialize=["batch"])
def linear_head_kernel(
    h,  # (batch, K) storage dtype
    weight,  # (vocabulary, K)
    slices,  # (n_slices, 2) int32
    logits,  # (batch, N_CANDIDATES) float32, out
    noise,  # (batch, N_CANDIDATES) float32, out
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    batch,
    K: tl.constexpr,
    N_CANDIDATES: tl.constexpr,
    STOP_ROW: tl.constexpr,
    STAGE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_B: tl.constexpr,
    PDL: tl.constexpr,
):
    """Program (tile, slice, part of the batch): stores only batch rows whose next token is drawn from its slice."""
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    own = tl.program_id(1)
    first = tl.load(slices + own * 2)
    width = tl.load(slices + own * 2 + 1)
    competes = column < width
    vocabulary = tl.where(competes, first + column, first)
    if STOP_ROW >= 0:
        vocabulary = tl.where(column == width, STOP_ROW, vocabulary)
        competes = column <= width
    prefetch_rows(weight, vocabulary, 0, K, K, PDL)
    pdl_launch(PDL)
    pdl_wait(PDL)
    b = tl.program_id(2) * BLOCK_B + tl.arange(0, BLOCK_B)
    slot = running_slots(rows, slots, b, batch)
    turn = tl.load(slots + slot * WORDS + PHASE, mask=slot >= 0, other=0)
    turn += tl.load(slots + slot * WORDS + DRAWN, mask=slot >= 0, other=0)
    slot = tl.where(turn % tl.num_programs(1) == own, slot, -1)
    if tl.max(slot, 0) >= 0:
        acc = rows_times_batch(weight, vocabulary, h, b, batch, 0, K, K, K % BLOCK_K == 0, BLOCK_K)
        at = b.to(tl.int64)[None, :] * N_CANDIDATES + column[:, None]
        mask = (slot >= 0)[None, :] & competes[:, None]
        drawing = load_draw(slots, slot[None, :], False)
        store_candidates(logits, noise, at, acc, vocabulary[:, None], mask, drawing, STAGE)
