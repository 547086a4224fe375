"""Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and Gumbel noise, in torch."""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * b.

    A product of two 32-bit numbers does not fit int64, so `a` is split into 16-bit halves.
    """
    from_low, from_high = (a & 0xFFFF) * b, (a >> 16) * b
    middle = (from_low >> 16) + (from_high & 0xFFFF)
    high = (from_high >> 16) + (middle >> 16)
    return high & _MASK, (middle << 16 | from_low & 0xFFFF) & _MASK


def philox_reference(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The four output words of Philox-4x32-10, int64 in 0..2**32-1.

    Args:
        counter, key: four and two int64 tensors that broadcast; only the low 32 bits are used.
    """
    c0, c1, c2, c3 = (word & _MASK for word in counter)
    k0, k1 = (word & _MASK for word in key)
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high2, low2 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def gumbel_of_word_reference(word: Tensor) -> Tensor:
    """What `gumbel_of_word` computes from integers in 0..2**32-1, float32."""
    v = ((word.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24)
    series = v * (1 + v * (0.5 + v * (1 / 3)))
    exponential = torch.where(v < 2.0**-10, series, -torch.log(1 - v))
    return -torch.log(exponential)


def gumbel_noise_reference(
    seed_low: int | Tensor, seed_high: int | Tensor, stage: int, draw: int | Tensor, index: int | Tensor
) -> Tensor:
    """What `gumbel_noise` computes, float32; integers or integer tensors that broadcast."""
    device = next((a.device for a in (index, draw, seed_low, seed_high) if isinstance(a, Tensor)), None)
    words = [torch.as_tensor(a, device=device).long() for a in (index, draw, stage, 0, seed_low, seed_high)]
    return gumbel_of_word_reference(philox_reference(tuple(words[:4]), (words[4], words[5]))[0])
