"""Residual addition and layer norm in one pass over the residual stream."""

import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.functions import pdl_launch, pdl_wait, running_slot
from barkfast_kernels.launch import INTERPRETED, launch, next_power_of_2


@triton.jit(do_not_specialize=["n_rows", "y_rows"])
def _residual_norm_kernel(
    x,  # (n, N_EMBD) float32, changed in place
    y,  # (SPLITS, y_rows, N_EMBD)
    y_bias,  # (N_EMBD,)
    weight,  # (N_EMBD,)
    bias,  # (N_EMBD,)
    out,  # (n_rows, N_EMBD) storage dtype, out
    rows,  # (n_rows,) int32
    slots,  # (n_slots, WORDS) int32
    n_rows,
    y_rows,
    N_EMBD: tl.constexpr,
    SPLITS: tl.constexpr,
    HAS_Y_BIAS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program: BLOCK_R rows. SPLITS is 0 where there is no `y`."""
    k = tl.arange(0, BLOCK_K)
    gain = tl.load(weight + k, mask=k < N_EMBD, other=0.0).to(tl.float32)
    if HAS_BIAS:
        shift = tl.load(bias + k, mask=k < N_EMBD, other=0.0).to(tl.float32)
    if HAS_Y_BIAS:
        added = tl.load(y_bias + k, mask=k < N_EMBD, other=0.0).to(tl.float32)
    pdl_launch(PDL)
    pdl_wait(PDL)

    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    r = tl.minimum(row, n_rows - 1)
    if HAS_ROWS:
        r = running_slot(rows, slots, r)
    mask = ((row < n_rows) & (r >= 0))[:, None] & (k < N_EMBD)[None, :]
    x_at = x + r.to(tl.int64)[:, None] * N_EMBD + k[None, :]
    residual = tl.load(x_at, mask=mask, other=0.0)
    if SPLITS > 0:
        y_at = y + row.to(tl.int64)[:, None] * N_EMBD + k[None, :]
        total = tl.load(y_at, mask=mask, other=0.0).to(tl.float32)
        step = tl.cast(y_rows, tl.int64) * N_EMBD
        for _ in tl.static_range(1, SPLITS):
            y_at += step
            total += tl.load(y_at, mask=mask, other=0.0).to(tl.float32)
        if HAS_Y_BIAS:
            total += added[None, :]
        residual += total
        tl.store(x_at, residual, mask=mask)

    mean = tl.sum(residual, 1) / N_EMBD
    centred = tl.where(mask, residual - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / N_EMBD + 1e-5)
    normed = centred * rstd[:, None] * gain[None, :]
    if HAS_BIAS:
        normed += shift[None, :]
    tl.store(out + row.to(tl.int64)[:, None] * N_EMBD + k[None, :], normed, mask=mask)


def residual_norm(
    x: Tensor,
    y: Tensor | None,
    y_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    rows: Tensor | None = None,
    slots: Tensor | None = None,
    *,
    pdl: bool = False,
) -> None:
    """x[r] += sum of y[:, row] + y_bias, in this order; out[row] = layer norm of x[r].

    Args:
        x: (n, n_embd) float32, the residual stream; changed only where there is a `y`.
        y: (splits, n_rows, n_embd), float32 or storage dtype, or None.
        y_bias: (n_embd,) or None; not used without `y`.
        weight, bias: (n_embd,) of the norm; no bias if None.
        out: (n_rows, n_embd), storage dtype.
        rows, slots: r is the slot of each of `rows` (batch,), rows that are not running are skipped. Without them
            r is the row and all rows of `out` are computed.
    """
    n_rows = len(out) if rows is None else len(rows)
    n_embd = x.shape[1]
    # A decode step has few rows, and prefill has enough to fill the device with one row per program.
    block_r = min(64, triton.next_power_of_2(n_rows)) if INTERPRETED else 1
    launch(
        _residual_norm_kernel,
        (triton.cdiv(n_rows, block_r),),
        {
            "x": x,
            "y": x if y is None else y,
            "y_bias": weight if y_bias is None else y_bias,
            "weight": weight,
            "bias": weight if bias is None else bias,
            "out": out,
            "rows": x if rows is None else rows,
            "slots": x if slots is None else slots,
            "n_rows": n_rows,
            "y_rows": 0 if y is None else y.shape[1],
        },
        {
            "N_EMBD": n_embd,
            "SPLITS": 0 if y is None else y.shape[0],
            "HAS_Y_BIAS": y is not None and y_bias is not None,
            "HAS_BIAS": bias is not None,
            "HAS_ROWS": rows is not None,
            "BLOCK_R": block_r,
            "BLOCK_K": next_power_of_2(n_embd),
        },
        num_warps=4,
        pdl=pdl,
    )
