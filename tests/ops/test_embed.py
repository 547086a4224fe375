"""Embeddings of prompts and of codes."""

import pytest
import torch

from barkfast_kernels.embed_codes import embed_codes, embed_codes_reference
from barkfast_kernels.embed_prompt import embed_prompt, embed_prompt_reference
from ops.tools import DTYPES, device, poison, randn


def _integers(high: int, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(high, shape, generator=generator, dtype=torch.int32).to(device())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_embd", [64, 96])
@pytest.mark.parametrize(
    ("length", "n_merged", "n_positions"),
    [(17, 8, 17), (17, 8, 32), (9, 0, 16), (1, 0, 1), (1, 1, 2), (0, 0, 3), (65, 64, 65), (1023, 0, 1024)],
)
def test_prompt(dtype: torch.dtype, n_embd: int, length: int, n_merged: int, n_positions: int) -> None:
    tokens = _integers(500, length + n_merged)
    wte, wpe = randn(500, n_embd, dtype=dtype, seed=1), randn(1024, n_embd, dtype=dtype, seed=2)
    prompt = torch.tensor([3, length, n_merged, 0], dtype=torch.int32, device=device())
    actual, expected = poison(n_positions, n_embd), poison(n_positions, n_embd)
    embed_prompt(tokens, wte, wpe, actual, prompt)
    embed_prompt_reference(tokens, wte, wpe, expected, prompt)
    assert torch.equal(actual, expected)
    assert expected[:length].ne(0).any(1).all() and expected[length:].eq(0).all()


def test_prompt_adds_text_and_history() -> None:
    """Three text tokens merged with three of history, then one more: as Bark's semantic prompt."""
    wte, wpe = randn(50, 64, seed=1), randn(8, 64, seed=2)
    tokens = torch.tensor([10, 11, 12, 20, 21, 22, 30], dtype=torch.int32, device=device())
    x = poison(4, 64)
    embed_prompt(tokens, wte, wpe, x, torch.tensor([0, 4, 3, 0], dtype=torch.int32, device=device()))
    assert torch.equal(x[:3], wte[10:13] + wte[20:23] + wpe[:3])
    assert torch.equal(x[3], wte[30] + wpe[3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_embd", [64, 96])
@pytest.mark.parametrize(("n_frames", "codebook"), [(1, 0), (33, 1), (33, 2), (64, 7), (1024, 4)])
def test_codes(dtype: torch.dtype, n_embd: int, n_frames: int, codebook: int) -> None:
    codes = _integers(56, n_frames, 8)
    tables, wpe = randn(8, 56, n_embd, dtype=dtype, seed=1), randn(1024, n_embd, dtype=dtype, seed=2)
    actual, expected = poison(n_frames, n_embd), poison(n_frames, n_embd)
    # Later codebooks must have no effect, whatever they hold.
    tables[codebook + 1 :] = float("nan")
    embed_codes(codes, tables, wpe, actual, codebook=codebook)
    embed_codes_reference(codes, tables, wpe, expected, codebook=codebook)
    assert torch.equal(actual, expected)
    assert expected.isfinite().all()
