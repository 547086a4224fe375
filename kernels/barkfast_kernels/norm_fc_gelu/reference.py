"""What norm_fc_gelu computes."""

from torch import Tensor
from torch.nn import functional as F

from barkfast_kernels.references import layer_norm, linear, running_rows


def norm_fc_gelu_reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    hidden: Tensor,
    rows: Tensor,
    slots: Tensor,
) -> None:
    """hidden[row] = GELU(W LN(x[slot]) + bias)."""
    for row, slot in running_rows(rows, slots):
        hidden[row] = F.gelu(linear(layer_norm(x[slot], norm_weight, norm_bias), weight, scale, bias)).to(hidden.dtype)
