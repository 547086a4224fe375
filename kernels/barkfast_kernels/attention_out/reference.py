"""What attention_out computes."""

from torch import Tensor

from barkfast_kernels.decode_attention.reference import combined
from barkfast_kernels.references import linear, running_rows


def attention_out_reference(
    x: Tensor,
    partial: Tensor,
    stats: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    rows: Tensor,
    slots: Tensor,
) -> None:
    """x[slot] += W o + bias, where o is the attention output, combined from the splits of `decode_attention`."""
    for row, slot in running_rows(rows, slots):
        x[slot] += linear(combined(partial[row], stats[row]).flatten(), weight, scale, bias)
