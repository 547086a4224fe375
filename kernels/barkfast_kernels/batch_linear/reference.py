"""References of the linear layers of batch_linear, row by row."""

from torch import Tensor
from torch.nn import functional as F

from barkfast_kernels.norm_head.reference import candidates_reference
from barkfast_kernels.references import linear, running_rows
from barkfast_kernels.slots import POSITION


def linear_qkv_reference(
    h: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: Tensor,
    slots: Tensor,
) -> None:
    """Query, key and value of each row's token; key and value are stored at POSITION of the row's slot."""
    _, n_head, block_size, head_dim = keys.shape
    for row, slot in running_rows(rows, slots):
        query, key, value = linear(h[row], weight, scale, bias).chunk(3)
        q[row] = query
        position = int(slots[slot, POSITION.value])
        if position < block_size:
            keys[slot, :, position] = key.view(n_head, head_dim)
            values[slot, :, position] = value.view(n_head, head_dim)


def linear_gelu_reference(h: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, out: Tensor) -> None:
    """out = gelu(W h + bias)."""
    out.copy_(F.gelu(linear(h, weight, scale, bias)))


def linear_partial_reference(h: Tensor, weight: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """Values whose sum over the splits is W h; here the first split holds all of it."""
    out[:, : len(h)] = 0
    out[0, : len(h)] = linear(h, weight, scale, None)


def linear_head_reference(
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
) -> None:
    """Logits and noise of each row's candidates for the next token."""
    for row, slot in running_rows(rows, slots):
        vocabulary, drawn_noise = candidates_reference(slots[slot], slices, stop_row, stage, h.device)
        logits[row, : len(vocabulary)] = linear(h[row], weight[vocabulary], None, None)
        noise[row, : len(vocabulary)] = drawn_noise
