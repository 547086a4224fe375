import torch
from torch import Tensor

from barkfast_kernels.random.reference import gumbel_noise_reference
from barkfast_kernels.slots import FAILED, FIRST_DRAW, POSITION, SEED_HIGH, SEED_LOW, STATUS, TEMPERATURE_F


def sample_codes_reference(
    logits: Tensor, codes: Tensor, draw: Tensor, *, codebook: int, codebook_size: int, stage: int
) -> None:
    """What `sample_codes` computes, frame by frame."""
    words = draw.tolist()
    # Kept as a tensor: on a GPU, torch divides by a Python number through its reciprocal.
    temperature = draw[TEMPERATURE_F.value].view(torch.float32)
    for t in range(words[POSITION.value], len(logits)):
        values = logits[t, :codebook_size].float()
        if not values.isfinite().all():
            draw[STATUS.value] = FAILED.value
            continue
        if temperature:
            number = words[FIRST_DRAW.value] + codebook * len(logits) + t
            index = torch.arange(codebook_size, device=logits.device)
            seed = words[SEED_LOW.value], words[SEED_HIGH.value]
            values = values / temperature + gumbel_noise_reference(*seed, stage, number, index)
        codes[t, codebook] = values.argmax()
