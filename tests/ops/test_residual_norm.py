"""residual_norm against its reference."""

import pytest
import torch

from barkfast_kernels.residual_norm import residual_norm, residual_norm_reference
from barkfast_kernels.slots import FINISHED, pack_slot
from ops.tools import DTYPES, TOLERANCE, poison, randn, rms_error, row_list, running_slots, slot_table

# LayerNorm divides by the standard deviation of the sums, which in float32 differ by a few units in the last place.
FLOAT32 = TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_rows", "n_embd", "splits", "y_bias", "bias"),
    [(1, 64, 1, True, True), (130, 96, 1, False, True), (67, 768, 3, True, False), (9, 1024, 4, False, False)],
)
def test_adds_and_norms_every_row(n_rows, n_embd, splits, y_bias, bias, dtype):
    x = randn(n_rows, n_embd, scale=3) + 1
    y = randn(splits, n_rows, n_embd, seed=1, dtype=dtype)
    y_bias = randn(n_embd, seed=2, dtype=dtype) if y_bias else None
    weight, bias = randn(n_embd, seed=3, dtype=dtype), randn(n_embd, seed=4, dtype=dtype) if bias else None
    out, expected_x, expected = poison(n_rows, n_embd, dtype=dtype), x.clone(), poison(n_rows, n_embd)
    residual_norm(x, y, y_bias, weight, bias, out)
    residual_norm_reference(expected_x, y, y_bias, weight, bias, expected)
    assert rms_error(x, expected_x) < FLOAT32
    assert rms_error(out, expected) < TOLERANCE[dtype]


def test_without_a_layer_output_x_stays():
    x, weight = randn(5, 96), randn(96, seed=1)
    before, out, expected = x.clone(), poison(5, 96), poison(5, 96)
    residual_norm(x, None, None, weight, None, out)
    residual_norm_reference(x, None, None, weight, None, expected)
    assert torch.equal(x, before)
    assert rms_error(out, expected) < FLOAT32


def test_partial_sums_are_added_in_order():
    x, weight = torch.ones_like(randn(1, 64)), randn(64)
    y = torch.stack([torch.full_like(x, part) for part in (1e8, -1e8, 1.0)])
    residual_norm(x, y, None, weight, None, poison(1, 64))
    assert (x == 2).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_go_to_their_slots(dtype):
    slots = slot_table(*(pack_slot(position=3, limit=9) for _ in range(5)), pack_slot(position=3, limit=9, status=3))
    assert slots[5, 3] == FINISHED.value
    rows = row_list(4, -1, 0, 5, 2)
    x, y = randn(6, 96), randn(2, 7, 96, seed=1)
    y_bias, weight, bias = (randn(96, seed=seed, dtype=dtype) for seed in (2, 3, 4))
    # Scratch has rows for the largest batch; unused rows may hold anything.
    y[:, [1, 3, 5, 6]] = float("nan")
    before, expected_x = x.clone(), x.clone()
    out, expected = poison(7, 96, dtype=dtype), poison(7, 96)
    residual_norm(x, y, y_bias, weight, bias, out, rows, slots)
    residual_norm_reference(expected_x, y, y_bias, weight, bias, expected, rows, slots)
    assert torch.equal(x[[1, 3, 5]], before[[1, 3, 5]])
    assert rms_error(x, expected_x) < FLOAT32
    done = [0, 2, 4]
    assert rms_error(out[done], expected[done]) < TOLERANCE[dtype]
    assert out[[1, 3, 5, 6]].isnan().all()


def test_a_row_does_not_depend_on_its_batch():
    slots, x, y = running_slots([1] * 40), randn(40, 768), randn(3, 40, 768, seed=1)
    weight, out, alone = randn(768, seed=2), poison(40, 768), poison(1, 768)
    x_alone = x.clone()
    residual_norm(x, y, None, weight, None, out, row_list(*range(40)), slots)
    residual_norm(x_alone, y[:, 17:18].contiguous(), None, weight, None, alone, row_list(17), slots)
    assert torch.equal(alone[0], out[17])
    assert torch.equal(x_alone[17], x[17])
