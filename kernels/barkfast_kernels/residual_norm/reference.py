"""What residual_norm computes."""

from torch import Tensor
from torch.nn import functional as F

from barkfast_kernels.slots import RUNNING, STATUS


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
    for row in range(len(out) if rows is None else len(rows)):
        r = row if rows is None else int(rows[row])
        if rows is not None and (r < 0 or int(slots[r, STATUS.value]) != RUNNING.value):
            continue
        if y is not None:
            x[r] += y[:, row].float().sum(0) + (0.0 if y_bias is None else y_bias.float())
        shift = None if bias is None else bias.float()
        out[row] = F.layer_norm(x[r], x[r].shape, weight.float(), shift, 1e-5)
