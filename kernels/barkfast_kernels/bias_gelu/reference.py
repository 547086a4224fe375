"""What bias_gelu computes."""

from torch import Tensor
from torch.nn import functional as F


def bias_gelu_reference(x: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """`out` (T, n) = gelu(x + bias), exact; `out` may be `x`."""
    biased = x.float() if bias is None else x.float() + bias.float()
    out.copy_(F.gelu(biased))
