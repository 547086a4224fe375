"""What residual_norm computes."""

from torch import Tensor

from barkfast_kernels.references import layer_norm, running_rows


def residual_norm_reference(
    x: Tensor,
    y: Tensor | None,
    y_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    rows: Tensor | None = None,
    slots: Tensor | None = None,
) -> None:
    """x[r] += sum of y[:, row] + y_bias; out[row] = layer norm of x[r]; r is the row's slot, or the row itself."""
    pairs = ((row, row) for row in range(len(out))) if rows is None else running_rows(rows, slots)
    for row, r in pairs:
        if y is not None:
            x[r] += y[:, row].float().sum(0) + (0.0 if y_bias is None else y_bias.float())
        out[row] = layer_norm(x[r], weight, bias)
