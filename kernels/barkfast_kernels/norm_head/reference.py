import torch
from torch import Tensor

from barkfast_kernels.random.reference import gumbel_noise_reference
from barkfast_kernels.slots import (
    DRAWN,
    FIRST_DRAW,
    PHASE,
    RUNNING,
    SEED_HIGH,
    SEED_LOW,
    STATUS,
    TEMPERATURE_F,
)


def norm_head_reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
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
    """What `norm_head` computes, row by row."""
    for row, slot in enumerate(rows.tolist()):
        if slot < 0 or slots[slot, STATUS.value] != RUNNING.value:
            continue
        words = slots[slot].tolist()
        first, width = slices[(words[PHASE.value] + words[DRAWN.value]) % len(slices)].tolist()
        vocabulary = torch.arange(first, first + width, device=x.device)
        if stop_row >= 0:
            vocabulary = torch.cat([vocabulary, vocabulary.new_tensor([stop_row])])
        bias = None if norm_bias is None else norm_bias.float()
        h = torch.nn.functional.layer_norm(x[slot], x.shape[1:], norm_weight.float(), bias, eps=1e-5)
        logits[row, : len(vocabulary)] = weight[vocabulary].float() @ h
        draw = words[FIRST_DRAW.value] + words[DRAWN.value]
        drawn_noise = gumbel_noise_reference(words[SEED_LOW.value], words[SEED_HIGH.value], stage, draw, vocabulary)
        greedy = slots[slot, TEMPERATURE_F.value].view(torch.float32) == 0
        noise[row, : len(vocabulary)] = 0 if greedy else drawn_noise
