import torch
from torch import Tensor

from barkfast_kernels.random.reference import gumbel_noise_reference
from barkfast_kernels.references import layer_norm, linear, running_rows
from barkfast_kernels.slots import DRAWN, FIRST_DRAW, PHASE, SEED_HIGH, SEED_LOW, TEMPERATURE_F


def candidates_reference(
    slot: Tensor, slices: Tensor, stop_row: int, stage: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Vocabulary rows of the candidates for a slot's next token, and their noise; `slot` is its words, int32."""
    words = slot.tolist()
    first, width = slices[(words[PHASE.value] + words[DRAWN.value]) % len(slices)].tolist()
    vocabulary = torch.arange(first, first + width, device=device)
    if stop_row >= 0:
        vocabulary = torch.cat([vocabulary, vocabulary.new_tensor([stop_row])])
    draw = words[FIRST_DRAW.value] + words[DRAWN.value]
    noise = gumbel_noise_reference(words[SEED_LOW.value], words[SEED_HIGH.value], stage, draw, vocabulary)
    greedy = slot[TEMPERATURE_F.value].view(torch.float32) == 0
    return vocabulary, torch.zeros_like(noise) if greedy else noise


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
    for row, slot in running_rows(rows, slots):
        vocabulary, drawn_noise = candidates_reference(slots[slot], slices, stop_row, stage, x.device)
        h = layer_norm(x[slot], norm_weight, norm_bias)
        logits[row, : len(vocabulary)] = linear(h, weight[vocabulary], None, None)
        noise[row, : len(vocabulary)] = drawn_noise
