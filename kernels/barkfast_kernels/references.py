"""Helpers of the references, in plain torch and float32."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F

from barkfast_kernels.slots import RUNNING, STATUS


def running_rows(rows: Tensor, slots: Tensor) -> Iterator[tuple[int, int]]:
    """(row, slot) of every row that is not skipped."""
    for row, slot in enumerate(rows.tolist()):
        if slot >= 0 and int(slots[slot, STATUS.value]) == RUNNING.value:
            yield row, slot


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Layer norm over the last axis."""
    return F.layer_norm(x.float(), x.shape[-1:], weight.float(), None if bias is None else bias.float(), 1e-5)


def linear(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """W x + bias; an int8 weight's rows are multiplied by `scale`."""
    weight = weight.float() if scale is None else weight.float() * scale[:, None]
    return F.linear(x.float(), weight, None if bias is None else bias.float())
