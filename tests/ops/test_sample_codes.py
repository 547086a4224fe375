"""The fine network's sampler against its reference, and against the expected odds."""

import pytest
import torch
from torch import Tensor

import barkfast_kernels.sample_codes.triton as sample_codes_module
from barkfast_kernels.sample_codes import sample_codes, sample_codes_reference
from barkfast_kernels.slots import FAILED, RUNNING, STATUS, pack_slot
from ops.test_sample_odds import chi_square_p
from ops.tools import DTYPES, device, poison, randn

SIZE = 48


def _logits(n_frames: int, dtype: torch.dtype) -> Tensor:
    """Logits of SIZE codes; the other columns are NaN and must not be read."""
    logits = poison(n_frames, SIZE + 9, dtype=dtype)
    logits[:, :SIZE] = randn(n_frames, SIZE, dtype=dtype, seed=1, scale=2)
    return logits


def _run(function, logits: Tensor, draw: Tensor, codebook: int) -> tuple[Tensor, Tensor]:
    """Run `function` on codes of -1; return (codes, draw)."""
    codes, draw = torch.full((len(logits), 8), -1, dtype=torch.int32, device=device()), draw.clone()
    function(logits, codes, draw, codebook=codebook, codebook_size=SIZE, stage=2)
    return codes, draw


@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize(
    ("n_frames", "first", "codebook"), [(1, 0, 2), (37, 0, 7), (37, 20, 3), (64, 63, 2), (5, 5, 2)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_reference(
    dtype: torch.dtype, n_frames: int, first: int, codebook: int, temperature: float
) -> None:
    logits = _logits(n_frames, dtype)
    draw = pack_slot(position=first, limit=0, seed=2**64 - 7, first_draw=5000, temperature=temperature).to(device())
    actual, expected = (_run(f, logits, draw, codebook) for f in (sample_codes, sample_codes_reference))
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)
    codes = expected[0]
    assert (codes[:first] == -1).all() and (codes[first:, codebook] >= 0).all()
    assert (codes != -1).sum() == n_frames - first


def test_agrees_with_a_frame_per_program(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, draw = _logits(9, torch.float32), pack_slot(position=2, limit=0, seed=4, temperature=0.7).to(device())
    expected = _run(sample_codes, logits, draw, 4)
    monkeypatch.setattr(sample_codes_module, "INTERPRETED", False)
    assert torch.equal(_run(sample_codes, logits, draw, 4)[0], expected[0])


def test_every_codebook_and_frame_has_its_own_noise() -> None:
    logits = torch.zeros(64, SIZE, device=device())
    draw = pack_slot(position=0, limit=0, seed=4, temperature=1.0).to(device())
    drawn = [_run(sample_codes, logits, draw, codebook)[0][:, codebook] for codebook in (2, 3)]
    assert (drawn[0] == drawn[1]).sum() < 10
    assert len(drawn[0].unique()) > 20


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_logits_that_are_not_finite_fail(bad: float, temperature: float) -> None:
    logits, draw = _logits(20, torch.float32), pack_slot(position=5, limit=0, temperature=temperature).to(device())
    fine = _run(sample_codes, logits, draw, 2)
    logits[4, 3] = bad
    before = _run(sample_codes, logits, draw, 2)
    assert torch.equal(before[0], fine[0]) and before[1][STATUS.value] == RUNNING.value
    logits[11, SIZE - 1] = bad
    codes, after = _run(sample_codes, logits, draw, 2)
    assert after[STATUS.value] == FAILED.value
    # The failed frame keeps -1, the others have their codes, and nothing else of `draw` changes.
    fine[0][11, 2] = -1
    assert torch.equal(codes, fine[0])
    after[STATUS.value] = RUNNING.value
    assert torch.equal(after, draw)


def test_draws_have_the_right_odds() -> None:
    n = 50_000
    logits = randn(SIZE, seed=17, scale=2)
    draw = pack_slot(position=0, limit=0, seed=99, temperature=0.5).to(device())
    codes, _ = _run(sample_codes, logits.repeat(n, 1), draw, 5)
    counts = codes[:, 5].bincount(minlength=SIZE)
    assert chi_square_p(counts, (logits / 0.5).softmax(0)) > 1e-3
    assert chi_square_p(counts, (logits / 0.55).softmax(0)) < 1e-6
