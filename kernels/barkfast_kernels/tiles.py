"""Matrix-vector products, split into programs that each hold their rows of the matrix in registers.

A program loads all its rows once, before it loads any vector, and then multiplies them by one vector after another.
The split depends only on the matrix and the device, so a vector's result has the same bits in any batch. SINGLE
kernels, for a batch of one, have no loop. With a loop the compiler converts the rows to float32 in front of it: that
saves work for several vectors, but doubles the registers, and so halves how many programs can load in advance.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from barkfast_kernels.functions import load_fresh, running
from barkfast_kernels.launch import INTERPRETED, multiprocessors, next_power_of_2

# 64 registers per thread in float32, 32 in half precision: leaves room for a vector and for several programs.
ELEMENTS_PER_THREAD = 64


@dataclass(frozen=True)
class RowTile:
    """`block_n` rows of `block_k` columns per program; `programs` of them cover the matrix."""

    block_n: int
    block_k: int
    num_warps: int
    programs: int


def row_tile(n_rows: int, n_columns: int, device: torch.device, *, block_k: int | None = None) -> RowTile:
    """The tile that gives the busiest multiprocessor the least work.

    Args:
        block_k: columns held per row, for a layout with gaps; by default the next power of two.
    """
    block_k = block_k or next_power_of_2(n_columns)
    num_warps = 4 if block_k <= 1024 else 8
    limit = max(1, ELEMENTS_PER_THREAD * 32 * num_warps // block_k)
    if INTERPRETED:
        # In the interpreter a program costs milliseconds whatever its size. Small enough for tests to have several.
        block_n = min(triton.next_power_of_2(n_rows), max(1, 2**15 // block_k))
        return RowTile(block_n, block_k, num_warps, triton.cdiv(n_rows, block_n))
    sms = multiprocessors(device)
    options = []
    block_n = 1
    while block_n <= limit:
        programs = triton.cdiv(n_rows, block_n)
        # A program also reads and normalises the vector, which is counted as one row more.
        options.append((triton.cdiv(programs, sms) * (block_n + 1), programs, block_n))
        block_n *= 2
    _, programs, block_n = min(options)
    return RowTile(block_n, block_k, num_warps, programs)


@triton.jit
def below(i, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """`i < SIZE`; true at compile time if BLOCK divides SIZE, so that the compiler removes the mask."""
    return (i < SIZE) | (SIZE % BLOCK == 0)


@triton.jit
def load_rows(weight, n, column, mask, K: tl.constexpr):
    """Load rows `n` (BLOCK_N,) and columns `column` (BLOCK_K,) of `weight` (N, K) in its storage dtype."""
    # Evicted first: each weight is read once per step, and the whole network is larger than the cache.
    return tl.load(weight + n.to(tl.int64)[:, None] * K + column[None, :], mask, other=0, eviction_policy="evict_first")


@triton.jit
def load_or(pointer, i, mask, PRESENT: tl.constexpr, DEFAULT: tl.constexpr):
    """pointer[i] as float32, or `DEFAULT` if the tensor is not PRESENT."""
    value = tl.full(i.shape, DEFAULT, tl.float32)
    if PRESENT:
        value = tl.load(pointer + i, mask, other=0.0).to(tl.float32)
    return value


@triton.jit
def fetch_row(x, listed, slots, k, mask, N_EMBD: tl.constexpr, ONE_TRIP: tl.constexpr):
    """`listed` if that slot is running, else -1, and its x (N_EMBD,) at `k`, loaded together with the status."""
    return running(slots, listed, ONE_TRIP), load_fresh(x + tl.maximum(listed, 0) * N_EMBD + k, mask, ONE_TRIP)


@triton.jit
def multiply(tile, scale, bias, vector):
    """scale * (tile @ vector) + bias in float32; `tile` (BLOCK_N, BLOCK_K), `scale`, `bias` (BLOCK_N,)."""
    BLOCK_N: tl.constexpr = tile.shape[0]
    QUARTER: tl.constexpr = tile.shape[1] // 4
    # A thread holds four adjacent columns. Fused multiply-adds are written out, because the compiler chooses others
    # in kernels with a loop than in kernels without, which would change the last bits.
    w_even, w_odd = tl.split(tl.reshape(tile.to(tl.float32), (BLOCK_N, QUARTER, 2, 2)))
    v_even, v_odd = tl.split(tl.reshape(vector[None, :], (1, QUARTER, 2, 2)))
    w0, w2 = tl.split(w_even)
    w1, w3 = tl.split(w_odd)
    v0, v2 = tl.split(v_even)
    v1, v3 = tl.split(v_odd)
    shape: tl.constexpr = (BLOCK_N, QUARTER)
    v0, v1 = tl.broadcast_to(v0, shape), tl.broadcast_to(v1, shape)
    v2, v3 = tl.broadcast_to(v2, shape), tl.broadcast_to(v3, shape)
    products = tl.fma(w3, v3, tl.fma(w2, v2, tl.fma(w1, v1, w0 * v0)))
    return tl.fma(tl.sum(products, axis=1), scale, bias)
