"""What the linear layers of batch_linear compute, row by row."""

import torch
from torch import Tensor
from torch.nn import functional as F

from barkfast_kernels.random.reference import gumbel_noise_reference
from barkfast_kernels.slots import (
    DRAWN,
    FIRST_DRAW,
    PHASE,
    POSITION,
    RUNNING,
    SEED_HIGH,
    SEED_LOW,
    STATUS,
    TEMPERATURE_F,
)


def _linear(h: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    product = h.float() @ weight.float().T
    if scale is not None:
        product = product * scale
    return product if bias is None else product + bias.float()


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
    """Query, key and value of each row's token; the latter two go where the row's slot stands."""
    _, n_head, block_size, head_dim = keys.shape
    for row, slot in enumerate(rows.tolist()):
        if slot < 0 or slots[slot, STATUS.value] != RUNNING.value:
            continue
        query, key, value = _linear(h[row], weight, scale, bias).chunk(3)
        q[row] = query
        position = int(slots[slot, POSITION.value])
        if position < block_size:
            keys[slot, :, position] = key.view(n_head, head_dim)
            values[slot, :, position] = value.view(n_head, head_dim)


def linear_gelu_reference(h: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, out: Tensor) -> None:
    """out = gelu(W h + bias)."""
    out.copy_(F.gelu(_linear(h, weight, scale, bias)))


def linear_partial_reference(h: Tensor, weight: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """Some numbers whose sum over the splits is W h; here all of it in the first."""
    out[:, : len(h)] = 0
    out[0, : len(h)] = _linear(h, weight, scale, None)


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
    """Logits and noise of the candidates that each row's slot draws from next."""
    for row, slot in enumerate(rows.tolist()):
        if slot < 0 or slots[slot, STATUS.value] != RUNNING.value:
            continue
        words = slots[slot].tolist()
        first, width = slices[(words[PHASE.value] + words[DRAWN.value]) % len(slices)].tolist()
        vocabulary = torch.arange(first, first + width, device=h.device)
        if stop_row >= 0:
            vocabulary = torch.cat([vocabulary, vocabulary.new_tensor([stop_row])])
        logits[row, : len(vocabulary)] = _linear(h[row], weight[vocabulary], None, None)
        draw = words[FIRST_DRAW.value] + words[DRAWN.value]
        drawn_noise = gumbel_noise_reference(words[SEED_LOW.value], words[SEED_HIGH.value], stage, draw, vocabulary)
        greedy = slots[slot, TEMPERATURE_F.value].view(torch.float32) == 0
        noise[row, : len(vocabulary)] = 0 if greedy else drawn_noise
