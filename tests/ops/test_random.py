"""Philox against published vectors, Gumbel noise against the reference and against its distribution."""

import math

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.random import (
    gumbel_noise,
    gumbel_noise_reference,
    gumbel_of_word,
    gumbel_of_word_reference,
    philox_reference,
)
from ops.tools import device, poison

# The smallest variates keep all bits, so the noise agrees to float32's last digits even at 23, its largest value.
TOLERANCE = 6e-6

# Random123's kat_vectors, philox4x32-10: counter, key, output.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@triton.jit
def _noise_kernel(out, draws, seed_low, seed_high, n, STAGE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    index = tl.arange(0, BLOCK)
    noise = gumbel_noise(tl.load(seed_low + row), tl.load(seed_high + row), STAGE, tl.load(draws + row), index)
    tl.store(out + row * n + index, noise, mask=index < n)


@triton.jit
def _word_kernel(words, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    word = tl.load(words + i, mask=i < n, other=0).to(tl.uint32, bitcast=True)
    tl.store(out + i, gumbel_of_word(word), mask=i < n)


def _signed(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device()).to(torch.int32)


def _words(text: str) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(int(word, 16)) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_words(counter: str, key: str, output: str) -> None:
    first, second = _words(key)
    assert philox_reference(_words(counter), (first, second)) == _words(output)


@pytest.mark.parametrize("stage", [0, 3])
def test_noise_is_the_references(stage: int) -> None:
    seeds = [(0, 0), (1, 0), (0, 1), (0x80000000, 0xFFFFFFFF), (0xFFFFFFFF, 0x80000000), (0xA4093822, 0x299F31D0)]
    draws = [0, 1, 767, 0x7FFFFFFF, 0xFFFFFFFF, 2307]
    low, high, draw = _signed([s[0] for s in seeds]), _signed([s[1] for s in seeds]), _signed(draws)
    out = poison(6, 10001)
    _noise_kernel[(6,)](out, draw, low, high, 10001, STAGE=stage, BLOCK=16384)
    expected = gumbel_noise_reference(
        low[:, None], high[:, None], stage, draw[:, None], torch.arange(10001, device=device())[None, :]
    )
    assert (out - expected).abs().max() < TOLERANCE


def test_every_counter_word_and_key_word_matters() -> None:
    index = torch.arange(64)
    base = gumbel_noise_reference(1, 2, 3, 4, index)
    others = [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)]
    for seed_low, seed_high, stage, draw in others:
        assert not (gumbel_noise_reference(seed_low, seed_high, stage, draw, index) == base).any()
    assert len(base.unique()) == 64


def test_extreme_words_give_finite_noise_in_order() -> None:
    # Around where the series takes over (v = 2**-10), where float32 loses bits of the word, and where v would be 1.
    corners = [0, 1 << 22, 1 << 23, 1 << 24, 1 << 31, (1 << 32) - 129]
    values = sorted({word + i for word in corners for i in range(129)} | {2**32 - 1})
    out = poison(len(values))
    _word_kernel[(1,)](_signed(values), out, len(values), BLOCK=1024)
    expected = gumbel_of_word_reference(torch.tensor(values, device=device()))
    assert (out - expected).abs().max() < TOLERANCE
    exact = [-math.log(-math.log1p(-(min((word + 0.5) / 2**32, 1 - 2**-24)))) for word in values]
    # The largest error: where 1 - v is used (v is at least 2**-10), it is rounded to 2**-25.
    assert (out.double().cpu() - torch.tensor(exact, dtype=torch.float64)).abs().max() < 4e-5
    assert 22.8 < out[0] < 22.9
    assert (out[:129].diff() < 0).all()
    assert (out.diff() <= 2e-5).all()


def test_noise_is_gumbel_distributed() -> None:
    noise = gumbel_noise_reference(5, 6, 0, torch.arange(64)[:, None], torch.arange(1 << 14)[None, :]).flatten()
    n = len(noise)
    assert abs(float(noise.double().mean()) - 0.5772156649) < 5 * math.pi / math.sqrt(6 * n)
    # P(noise > g) = 1 - exp(-exp(-g)), far into the tail, which decides draws of rare tokens.
    for chance in (0.9, 0.5, 0.1, 1e-2, 1e-3, 1e-4, 2e-5):
        above = int((noise > -math.log(-math.log1p(-chance))).sum())
        assert abs(above - n * chance) < 4 * math.sqrt(n * chance), chance
