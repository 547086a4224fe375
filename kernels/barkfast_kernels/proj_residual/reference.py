"""What proj_residual computes."""

from torch import Tensor

from barkfast_kernels.references import linear, running_rows


def proj_residual_reference(
    x: Tensor,
    hidden: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    rows: Tensor,
    slots: Tensor,
) -> None:
    """x[slot] += W hidden[row] + bias."""
    for row, slot in running_rows(rows, slots):
        x[slot] += linear(hidden[row], weight, scale, bias)
