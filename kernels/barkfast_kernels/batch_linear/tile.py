"""The matrix product of all batched linear layers: a few weight rows times the activations of the whole batch."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from barkfast_kernels.functions import running_slot
from barkfast_kernels.launch import INTERPRETED, next_power_of_2

NUM_WARPS = 4
_THREADS = tl.constexpr(32 * NUM_WARPS)
# On a CPU the summation order of a matrix product depends on the position of a column. That of a plain sum does not,
# so that in the interpreter, too, a row has the same result in any batch.
_PLAIN = tl.constexpr(INTERPRETED)
# Triton's limit for one block.
MAX_ELEMENTS = 2**20


@triton.jit
def prefetch_rows(weight, row, first, K: tl.constexpr, SHARE: tl.constexpr, PDL: tl.constexpr):
    """Prefetch columns first <= k < first + SHARE of the weight rows into the L2 cache.

    Called before `pdl_wait`: the transfer then overlaps with the previous kernel, and takes neither registers nor
    shared memory.
    """
    BLOCK_N: tl.constexpr = row.shape[0]
    SIZE: tl.constexpr = weight.dtype.element_ty.primitive_bitwidth // 8
    CHUNKS: tl.constexpr = _THREADS // BLOCK_N
    # One chunk per thread; addresses and lengths must be multiples of 16 bytes. Other sizes are not prefetched.
    if PDL and K * SIZE % 16 == 0 and SHARE * SIZE % (16 * CHUNKS) == 0:
        chunk = tl.arange(0, CHUNKS) * (SHARE // CHUNKS)
        address = (weight + row.to(tl.int64)[:, None] * K + (first + chunk)[None, :]).to(tl.int64) & -16
        tl.inline_asm_elementwise(
            "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
            "=r,l,r",
            [address, tl.full((BLOCK_N, CHUNKS), SHARE // CHUNKS * SIZE, tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def rows_times_batch(
    weight,  # (rows, K), storage dtype or int8
    row,  # (BLOCK_N,) rows of `weight` to multiply, all within it
    h,  # (batch, K) storage dtype
    b,  # (BLOCK_B,) rows of `h`; results of rows past the batch are meaningless
    batch,
    first,
    K: tl.constexpr,
    SHARE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """(BLOCK_N, BLOCK_B) float32: weight[row] @ h[b].T over columns first <= k < first + SHARE.

    The order of each sum does not depend on the batch. EVEN means that SHARE is a multiple of BLOCK_K and that no
    share reaches beyond K.
    """
    k = tl.arange(0, BLOCK_K)
    weight_at = weight + row.to(tl.int64)[:, None] * K + (first + k)[None, :]
    h_at = h + tl.minimum(b, batch - 1)[None, :] * K + (first + k)[:, None]
    acc = tl.zeros((row.shape[0], b.shape[0]), dtype=tl.float32)
    for start in range(0, SHARE, BLOCK_K):
        if EVEN:
            w_tile = tl.load(weight_at + start)
            h_tile = tl.load(h_at + start)
        else:
            inside = (start + k < SHARE) & (first + start + k < K)
            w_tile = tl.load(weight_at + start, mask=inside[None, :], other=0)
            h_tile = tl.load(h_at + start, mask=inside[:, None], other=0.0)
        w_tile = w_tile.to(h_tile.dtype)
        if _PLAIN:
            products = w_tile.to(tl.float32)[:, None, :] * tl.trans(h_tile.to(tl.float32))[None, :, :]
            acc += tl.sum(products, axis=2)
        else:
            acc = tl.dot(w_tile, h_tile, acc, input_precision="ieee")
    return acc


@triton.jit
def running_slots(rows, slots, b, batch):
    """The slots of a block of rows `b`; -1 past the batch and where the slot is not running."""
    return tl.where(b < batch, running_slot(rows, slots, tl.minimum(b, batch - 1)), -1)


@dataclass(frozen=True)
class Tile:
    """Block sizes of a product: weight rows, columns per step, batch rows; and the pipeline stages."""

    block_n: int
    block_k: int
    block_b: int
    num_stages: int

    def blocks(self) -> dict[str, int]:
        """The block sizes by the kernels' parameter names."""
        return {"BLOCK_N": self.block_n, "BLOCK_K": self.block_k, "BLOCK_B": self.block_b}


def choose_tile(rows: int, K: int, batch: int, dtype: torch.dtype) -> Tile:
    """Tile for activations of `dtype`; the order of sums does not depend on `batch`.

    At most 72 KiB of tiles are in flight: a consumer GPU has 99 KiB, and two programs fit an H100's multiprocessor.
    """
    block_b = 16 if batch <= 16 else 32 if batch <= 32 else 64
    if INTERPRETED:
        block_k = min(128, next_power_of_2(K))
        return Tile(min(MAX_ELEMENTS // (block_b * block_k), next_power_of_2(rows)), block_k, block_b, 1)
    if dtype == torch.float32:
        # No matrix instructions: the operands of the dot are held in registers.
        return Tile(32, 32, block_b, 3)
    # Every program reads all activations: with only 16 weight rows, they would be most of the traffic at a batch of 64.
    return Tile(32, min(128, next_power_of_2(K)), block_b, {16: 6, 32: 5, 64: 4}[block_b])
