"""The head and its noise: candidates by slice, the stop token, skipped rows, rows single and batched."""

import math

import pytest
import torch
from torch import Tensor

import barkfast_kernels.norm_head.triton as norm_head_module
from barkfast_kernels.norm_head import norm_head, norm_head_reference
from barkfast_kernels.slots import IDLE, pack_slot
from ops.tools import DTYPES, device, poison, randn, rms_error, row_list, slot_table

VOCABULARY = 200
# The same for every dtype: both compute in float32 from the same rounded weights.
TOLERANCE = 2e-6
NOISE_TOLERANCE = 6e-6


class Case:
    """Five slots, one of them idle, drawing from two slices of 50 and 61 rows."""

    def __init__(self, n_embd: int, dtype: torch.dtype, stop_row: int, bias: bool) -> None:
        self.x = randn(5, n_embd, seed=1, scale=3) + 1
        self.norm_weight = randn(n_embd, dtype=dtype, seed=2)
        self.norm_bias = randn(n_embd, dtype=dtype, seed=3) if bias else None
        self.weight = randn(VOCABULARY, n_embd, dtype=dtype, seed=4, scale=n_embd**-0.5)
        self.slices = torch.tensor([[7, 50], [90, 61]], dtype=torch.int32, device=device())
        self.stop_row = stop_row
        self.slots = slot_table(
            pack_slot(position=0, limit=9, temperature=0.7, seed=1),
            pack_slot(position=1, limit=9, temperature=0.0, seed=2, phase=1),
            pack_slot(position=63, limit=9, temperature=1.0, seed=3, status=IDLE.value),
            pack_slot(position=64, limit=9, temperature=0.5, seed=2**64 - 1, phase=1, first_draw=1000),
            pack_slot(position=1023, limit=9, temperature=0.7, seed=1, first_draw=2**31 - 1),
        )
        self.slots[4, 1] = 3  # DRAWN, so that the slice does not depend on the phase alone

    def run(self, function, *rows: int, **options) -> tuple[Tensor, Tensor]:
        columns = 61 + (self.stop_row >= 0)
        logits, noise = poison(len(rows), columns), poison(len(rows), columns)
        parts = (self.x, self.norm_weight, self.norm_bias, self.weight, self.slices, self.stop_row)
        function(*parts, logits, noise, row_list(*rows), self.slots, stage=2, **options)
        return logits, noise


def _assert_agree(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a.isnan(), e.isnan())
    assert rms_error(actual[0].nan_to_num(), expected[0].nan_to_num()) < TOLERANCE
    assert (actual[1] - expected[1]).nan_to_num().abs().max() < NOISE_TOLERANCE


@pytest.mark.sweep(5)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stop_row", [-1, 199])
@pytest.mark.parametrize("n_embd", [64, 96])
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_reference(dtype: torch.dtype, n_embd: int, stop_row: int, bias: bool) -> None:
    case = Case(n_embd, dtype, stop_row, bias)
    rows = (3, -1, 1, 2, 4, 0)
    expected = case.run(norm_head_reference, *rows)
    _assert_agree(case.run(norm_head, *rows), expected)
    stop = int(stop_row >= 0)
    # Check the reference itself: the number of candidates of each row, and no noise for greedy slots.
    assert expected[0].isfinite().sum(1).tolist() == [61 + stop, 0, 61 + stop, 0, 61 + stop, 50 + stop]
    assert expected[1][2].eq(0).all() and expected[1][0].ne(0).all()


@pytest.mark.parametrize("stop_row", [-1, 199])
def test_agrees_in_the_tiles_of_a_gpu(stop_row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_head_module, "INTERPRETED", False)
    case = Case(64, torch.float32, stop_row, False)
    _assert_agree(case.run(norm_head, 0, 3), case.run(norm_head_reference, 0, 3))


def test_a_row_alone_is_the_row_in_a_batch() -> None:
    case = Case(96, torch.float16, 199, True)
    together = case.run(norm_head, 4, 1, 0, 3)
    for row, slot in enumerate((4, 1, 0, 3)):
        for a, b in zip(case.run(norm_head, slot), together, strict=True):
            assert torch.equal(a[0].nan_to_num(), b[row].nan_to_num())


def test_noise_belongs_to_the_vocabulary_row() -> None:
    """Equal seeds and draw numbers give equal noise to a token, whichever slice it is drawn from."""
    case = Case(64, torch.float32, -1, False)
    case.slices[1] = torch.tensor([20, 61])
    case.slots[3] = pack_slot(position=0, limit=9, temperature=0.5, seed=1, phase=1)
    noise = case.run(norm_head, 0, 3)[1]
    assert torch.equal(noise[0, 13:50], noise[1, :37])


@pytest.mark.parametrize(("candidates", "n_embd"), [(10001, 1024), (10001, 768), (1024, 1024), (1025, 768), (61, 64)])
@pytest.mark.parametrize("sms", [132, 128, 108, 82, 1])
def test_tiles_share_the_work_out(candidates: int, n_embd: int, sms: int) -> None:
    size = norm_head_module.tile_rows(candidates, n_embd, sms)
    assert size * n_embd <= 16 * 1024 or size == 4
    busiest = math.ceil(math.ceil(candidates / size) / sms) * size
    assert busiest <= 1.1 * (candidates / sms + 4)
