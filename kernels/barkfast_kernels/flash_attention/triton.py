"""Self-attention of one sequence; scores stay on the chip (Dao et al., FlashAttention-2, algorithm 1)."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.launch import INTERPRETED, launch, next_power_of_2


@triton.jit
def _attend(
    q,  # (BLOCK_M, BLOCK_D) storage dtype
    key,  # (T, STRIDE), the columns of this head
    value,  # (T, STRIDE), the columns of this head
    acc,  # (BLOCK_M, BLOCK_D) float32
    peak,  # (BLOCK_M,) float32
    total,  # (BLOCK_M,) float32
    row,  # (BLOCK_M,) int32
    T,
    scale,
    first,
    last,
    STRIDE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Add the keys first <= position < last to the running softmax (acc, peak, total) of the rows of `q`.

    MASKED: some of them may be beyond T or, with CAUSAL, after a row.
    """
    d = tl.arange(0, BLOCK_D)
    for start in range(first, last, BLOCK_N):
        position = start + tl.arange(0, BLOCK_N)
        mask_k = (d < HEAD_DIM)[:, None]
        mask_v = (d < HEAD_DIM)[None, :]
        if MASKED:
            mask_k = mask_k & (position < T)[None, :]
            mask_v = mask_v & (position < T)[:, None]
        k = tl.load(key + d[:, None] + position[None, :] * STRIDE, mask=mask_k, other=0.0)
        score = tl.dot(q, k, input_precision="ieee")
        if MASKED:
            visible = (position < T)[None, :]
            if CAUSAL:
                visible = visible & (position[None, :] <= row[:, None])
            score = tl.where(visible, score, float("-inf"))
        # Every row sees position 0, which comes first, so the new peak is never -inf.
        new_peak = tl.maximum(peak, tl.max(score, 1) * scale)
        p = tl.exp2(score * scale - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(p, 1)
        peak = new_peak
        v = tl.load(value + d[None, :] + position[:, None] * STRIDE, mask=mask_v, other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, peak, total


@triton.jit(do_not_specialize=["T"])
def _flash_attention_kernel(
    qkv,  # (T, 3 * N_EMBD)
    out,  # (T, N_EMBD), out
    keys,  # (n_slots, n_head, block_size, HEAD_DIM), out
    values,  # (n_slots, n_head, block_size, HEAD_DIM), out
    prompt,  # (4,) int32
    T,
    scale,
    block_size,
    N_EMBD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_CACHE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_M queries of one head. Grid (n_head, blocks of queries)."""
    STRIDE: tl.constexpr = 3 * N_EMBD
    head = tl.program_id(0)
    block = tl.program_id(1)
    if CAUSAL:
        # The last queries see most keys: they start first, and shorter programs fill the gaps.
        block = tl.num_programs(1) - 1 - block
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    mask = (row < T)[:, None] & (d < HEAD_DIM)[None, :]
    query = qkv + head * HEAD_DIM
    key = query + N_EMBD
    value = key + N_EMBD
    tile = row[:, None] * STRIDE + d[None, :]

    q = tl.load(query + tile, mask=mask, other=0.0)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    peak = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    if CAUSAL:
        whole = block * BLOCK_M // BLOCK_N * BLOCK_N
        last = tl.minimum(T, (block + 1) * BLOCK_M)
    else:
        whole = T // BLOCK_N * BLOCK_N
        last = T
    acc, peak, total = _attend(
        q, key, value, acc, peak, total, row, T, scale, 0, whole, STRIDE, HEAD_DIM, BLOCK_D, BLOCK_N, CAUSAL, False
    )
    acc, peak, total = _attend(
        q, key, value, acc, peak, total, row, T, scale, whole, last, STRIDE, HEAD_DIM, BLOCK_D, BLOCK_N, CAUSAL, True
    )
    tl.store(out + row[:, None] * N_EMBD + head * HEAD_DIM + d[None, :], acc / total[:, None], mask=mask)

    if HAS_CACHE:
        slot = tl.load(prompt).to(tl.int64)
        length = tl.where(slot >= 0, tl.minimum(tl.load(prompt + 1), block_size), 0)
        mask = mask & (row < length)[:, None]
        to = (slot * tl.num_programs(0) + head) * block_size * HEAD_DIM + row[:, None] * HEAD_DIM + d[None, :]
        tl.store(keys + to, tl.load(key + tile, mask=mask), mask=mask)
        tl.store(values + to, tl.load(value + tile, mask=mask), mask=mask)


def _blocks(dtype: torch.dtype, block_d: int) -> tuple[int, int, int]:
    """BLOCK_M, BLOCK_N and pipeline stages.

    64 queries per program give two programs per multiprocessor of an H100 at T = 1024 and 16 heads. Their softmax and
    matrix instructions overlap, and the load of a causal mask is more even than with 128.
    """
    if INTERPRETED:
        return 128, 128, 1
    if dtype == torch.float32:
        return 32, 16, 2
    return 64, 64, 3 if block_d <= 64 else 2


def _launch(
    qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor, Tensor] | None, *, n_head: int, causal: bool
) -> None:
    length, n_embd = out.shape
    head_dim = n_embd // n_head
    block_d = next_power_of_2(head_dim)
    block_m, block_n, num_stages = _blocks(qkv.dtype, block_d)
    keys, values, prompt = cache or (out, out, out)
    launch(
        _flash_attention_kernel,
        (n_head, triton.cdiv(length, block_m)),
        {
            "qkv": qkv,
            "out": out,
            "keys": keys,
            "values": values,
            "prompt": prompt,
            "T": length,
            "scale": head_dim**-0.5 * math.log2(math.e),
            "block_size": keys.shape[2] if cache else 0,
        },
        {
            "N_EMBD": n_embd,
            "HEAD_DIM": head_dim,
            "CAUSAL": causal,
            "HAS_CACHE": cache is not None,
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "BLOCK_D": block_d,
        },
        num_warps=4 if block_d <= 64 else 8,
        num_stages=num_stages,
    )


def flash_attention(qkv: Tensor, out: Tensor, *, n_head: int, causal: bool) -> None:
    """Softmax self-attention of one sequence, scores scaled by head_dim**-0.5.

    Args:
        qkv: (T, 3 * n_embd), query, key and value of all heads side by side.
        out: (T, n_embd), same dtype.
        causal: whether a position sees only itself and those before it.
    """
    _launch(qkv, out, None, n_head=n_head, causal=causal)


def prefill_attention(qkv: Tensor, out: Tensor, keys: Tensor, values: Tensor, prompt: Tensor, *, n_head: int) -> None:
    """Causal `flash_attention` of a prompt; also fills the slot's KV cache.

    Args:
        qkv: (T, 3 * n_embd), padded on the right; padding must be finite.
        out: (T, n_embd).
        keys, values: (n_slots, n_head, block_size, head_dim); positions below the prompt's length are written.
        prompt: (4,) int32: slot, length and two words that are not read here; a slot of -1 writes no cache.
    """
    _launch(qkv, out, (keys, values, prompt), n_head=n_head, causal=True)
