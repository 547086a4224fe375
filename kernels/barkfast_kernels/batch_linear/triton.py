"""Linear layers of a decode step where the batch is large enough for matrix instructions.

Weights are the left operand, so that the batch is the short side of the product (padded to 16, 32 or 64) and each
weight is read once. A larger batch has one program for every 64 rows.
"""

import torch
import triton
from torch import Tensor

from barkfast_kernels.batch_linear.kernels import (
    linear_gelu_kernel,
    linear_head_kernel,
    linear_partial_kernel,
    linear_qkv_kernel,
)
from barkfast_kernels.batch_linear.tile import NUM_WARPS, choose_tile
from barkfast_kernels.launch import launch, linear_args, multiprocessors

# With more splits, reading them for the residual stream would cost more than they save.
MAX_SPLITS = 8


def linear_qkv(
    h: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: Tensor,
    slots: Tensor,
    *,
    pdl: bool = False,
) -> None:
    """q[row] = query part of W h[row] + bias; key and value are stored in the cache of the row's slot, at its POSITION.

    Args:
        h: (at least batch, n_embd) storage dtype.
        weight: (3 * n_embd, n_embd), storage dtype, or int8 with `scale`.
        scale: (3 * n_embd,) float32, or None.
        bias: (3 * n_embd,) or None.
        q: (at least batch, n_embd) float32, out.
        keys, values: (n_slots, n_head, block_size, head_dim), out; nothing is written beyond block_size.
        rows: (batch,) int32.
        slots: (n_slots, WORDS) int32.
        pdl: whether to start before earlier kernels have ended.
    """
    n_rows, K = weight.shape
    batch = rows.shape[0]
    tile = choose_tile(n_rows, K, batch, h.dtype)
    linear, present = linear_args(weight, scale, bias)
    launch(
        linear_qkv_kernel,
        (triton.cdiv(n_rows, tile.block_n), triton.cdiv(batch, tile.block_b)),
        {
            "h": h,
            **linear,
            "q": q,
            "keys": keys,
            "values": values,
            "rows": rows,
            "slots": slots,
            "batch": batch,
            "block_size": keys.shape[2],
        },
        {
            "K": K,
            "HEAD_DIM": keys.shape[3],
            **present,
            **tile.blocks(),
        },
        num_warps=NUM_WARPS,
        num_stages=tile.num_stages,
        pdl=pdl,
    )


def linear_gelu(
    h: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, out: Tensor, *, pdl: bool = False
) -> None:
    """out = gelu(W h + bias), exact, for all rows.

    Args:
        h: (batch, in_features) storage dtype.
        weight: (out_features, in_features), storage dtype, or int8 with `scale`.
        scale: (out_features,) float32, or None.
        bias: (out_features,) or None.
        out: (batch, out_features) storage dtype.
        pdl: whether to start before earlier kernels have ended.
    """
    batch, K = h.shape
    n_rows = weight.shape[0]
    tile = choose_tile(n_rows, K, batch, h.dtype)
    linear, present = linear_args(weight, scale, bias)
    launch(
        linear_gelu_kernel,
        (triton.cdiv(n_rows, tile.block_n), triton.cdiv(batch, tile.block_b)),
        {
            "h": h,
            **linear,
            "out": out,
            "batch": batch,
        },
        {
            "N": n_rows,
            "K": K,
            **present,
            **tile.blocks(),
        },
        num_warps=NUM_WARPS,
        num_stages=tile.num_stages,
        pdl=pdl,
    )


def partial_splits(weight: Tensor, dtype: torch.dtype) -> int:
    """Number of splits for `linear_partial`: the fewest of those that minimize the busiest multiprocessor's work.

    Args:
        weight: (out_features, in_features).
        dtype: of the activations.
    """
    n_rows, K = weight.shape
    sms = multiprocessors(weight.device)
    tile = choose_tile(n_rows, K, 1, dtype)
    tiles, steps = triton.cdiv(n_rows, tile.block_n), triton.cdiv(K, tile.block_k)
    candidates = [splits for splits in range(1, MAX_SPLITS + 1) if steps % splits == 0]
    return min(candidates, key=lambda splits: triton.cdiv(tiles * splits, sms) * steps // splits)


def linear_partial(h: Tensor, weight: Tensor, scale: Tensor | None, out: Tensor, *, pdl: bool = False) -> None:
    """out[s] = W h over split s of the in_features; the sum over s is the whole product.

    Args:
        h: (batch, in_features) storage dtype.
        weight: (out_features, in_features), storage dtype, or int8 with `scale`.
        scale: (out_features,) float32, or None.
        out: (splits, at least batch, out_features) float32; `partial_splits` gives the number of splits.
        pdl: whether to start before earlier kernels have ended.
    """
    batch, K = h.shape
    n_rows, splits = weight.shape[0], out.shape[0]
    tile = choose_tile(n_rows, K, batch, h.dtype)
    share = triton.cdiv(triton.cdiv(K, tile.block_k), splits) * tile.block_k
    launch(
        linear_partial_kernel,
        (triton.cdiv(n_rows, tile.block_n), splits, triton.cdiv(batch, tile.block_b)),
        {
            "h": h,
            "weight": weight,
            "scale": h if scale is None else scale,
            "out": out,
            "batch": batch,
            "out_rows": out.shape[1],
        },
        {
            "N": n_rows,
            "K": K,
            "SHARE": share,
            "EVEN": share * splits == K,
            "HAS_SCALE": scale is not None,
            **tile.blocks(),
        },
        num_warps=NUM_WARPS,
        num_stages=tile.num_stages,
        pdl=pdl,
    )


def linear_head(
    h: Tensor,
    weight: Tensor,
    slices: Tensor,
    stop_row: int,
    logits: Tensor,
    noise: Tensor,
    rows: Tensor,
    slots: Tensor,
    *,
    stage: int,
    pdl: bool = False,
) -> None:
    """`norm_head` without the norm: logits of each row's candidates, and their noise for sampling.

    Args:
        h: (at least batch, n_embd) storage dtype, already normalised.
        weight: (vocabulary, n_embd) storage dtype.
        slices: (n_slices, 2) int32, first vocabulary row and width; constant, read before earlier kernels end.
        stop_row: vocabulary row of the stop token, candidate `width`; -1 if there is none.
        logits, noise: (at least batch, largest width + 1 if there is a stop token) float32, out. Columns beyond a
            row's own candidates are not written.
        rows: (batch,) int32.
        slots: (n_slots, WORDS) int32.
        stage: number of the network, so that each network has its own random numbers.
        pdl: whether to start before earlier kernels have ended.
    """
    batch, candidates = rows.shape[0], logits.shape[1]
    tile = choose_tile(candidates, weight.shape[1], batch, h.dtype)
    launch(
        linear_head_kernel,
        (triton.cdiv(candidates, tile.block_n), slices.shape[0], triton.cdiv(batch, tile.block_b)),
        {
            "h": h,
            "weight": weight,
            "slices": slices,
            "logits": logits,
            "noise": noise,
            "rows": rows,
            "slots": slots,
            "batch": batch,
        },
        {
            "K": weight.shape[1],
            "N_CANDIDATES": candidates,
            "STOP_ROW": stop_row,
            "STAGE": stage,
            **tile.blocks(),
        },
        num_warps=NUM_WARPS,
        num_stages=tile.num_stages,
        pdl=pdl,
    )
