"""The linear layers of batch_linear against their references."""

import pytest
import torch

from barkfast_kernels.batch_linear import (
    linear_gelu,
    linear_gelu_reference,
    linear_head,
    linear_head_reference,
    linear_partial,
    linear_partial_reference,
    linear_qkv,
    linear_qkv_reference,
    partial_splits,
)
from barkfast_kernels.launch import recording
from barkfast_kernels.slots import pack_slot
from ops.tools import (
    DTYPES,
    TOLERANCE,
    device,
    poison,
    quantize,
    randn,
    rms_error,
    row_list,
    running_slots,
    slot_table,
)

FLOAT32 = TOLERANCE[torch.float32]
BATCHES = [1, 3, 16, 17, 33, 64, 70]
# Dequantized int8 weights are in half precision too, so both have the same tolerance.
STORAGE = [(dtype, False) for dtype in DTYPES] + [(dtype, True) for dtype in DTYPES]


def matrix(rows, columns, dtype, int8):
    """(weight, scale or None)."""
    weight = randn(rows, columns, dtype=dtype, seed=50, scale=columns**-0.5)
    return quantize(weight) if int8 else (weight, None)


def caches(n_slots, n_head, head_dim, dtype, block_size=128):
    return [poison(n_slots, n_head, block_size, head_dim, dtype=dtype) for _ in range(2)]


def same(actual, expected, tolerance):
    """Whether both are NaN in the same places and close elsewhere."""
    where = expected.isnan()
    return torch.equal(actual.isnan(), where) and rms_error(actual[~where], expected[~where]) < tolerance


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "int8"), STORAGE)
@pytest.mark.parametrize(("n_head", "head_dim"), [(2, 48), (4, 16), (5, 20)])
def test_qkv_appends_where_each_slot_stands(n_head, head_dim, dtype, int8, bias):
    n_embd = n_head * head_dim
    positions = [0, 1, 63, 64, 127, 128, 5, 6]
    slots = running_slots(positions)
    slots[6, 3] = 0
    rows = row_list(3, 7, -1, 0, 6, 5, 1, 2, 4)
    h = randn(12, n_embd, dtype=dtype)
    h[9:] = float("nan")
    weight, scale = matrix(3 * n_embd, n_embd, dtype, int8)
    bias = randn(3 * n_embd, dtype=dtype, seed=2) if bias else None
    q, expected_q = poison(12, n_embd), poison(12, n_embd)
    actual, expected = caches(8, n_head, head_dim, dtype), caches(8, n_head, head_dim, dtype)
    linear_qkv(h, weight, scale, bias, q, *actual, rows, slots)
    linear_qkv_reference(h, weight, scale, bias, expected_q, *expected, rows, slots)
    assert same(q, expected_q, FLOAT32)
    for cache, expected_cache in zip(actual, expected, strict=True):
        # Of the running slots, the one at 128 has no room left.
        assert int((~cache.isnan()).sum()) == 6 * n_embd
        assert same(cache, expected_cache, TOLERANCE[dtype])


@pytest.mark.sweep(8)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "int8"), STORAGE)
@pytest.mark.parametrize(("rows", "columns", "batch"), [(256, 64, 1), (384, 96, 20), (100, 768, 33), (1100, 40, 70)])
def test_gelu(rows, columns, batch, dtype, int8, bias):
    h, (weight, scale) = randn(batch, columns, dtype=dtype), matrix(rows, columns, dtype, int8)
    bias = randn(rows, dtype=dtype, seed=2) if bias else None
    out, expected = poison(batch + 3, rows, dtype=dtype), poison(batch, rows)
    linear_gelu(h, weight, scale, bias, out[:batch])
    linear_gelu_reference(h, weight, scale, bias, expected)
    assert rms_error(out[:batch], expected) < TOLERANCE[dtype]
    assert out[batch:].isnan().all()


@pytest.mark.sweep(5)
@pytest.mark.parametrize(("dtype", "int8"), STORAGE)
@pytest.mark.parametrize(
    ("rows", "columns", "batch", "splits"),
    [(96, 384, 3, 3), (96, 384, 3, 2), (64, 256, 17, 1), (100, 1000, 40, 4), (1100, 40, 70, 3)],
)
def test_partial_sums_add_up(rows, columns, batch, splits, dtype, int8):
    h, (weight, scale) = randn(batch, columns, dtype=dtype), matrix(rows, columns, dtype, int8)
    out, expected = poison(splits, batch + 3, rows), poison(1, batch, rows)
    linear_partial(h, weight, scale, out)
    linear_partial_reference(h, weight, scale, expected)
    assert rms_error(out[:, :batch].sum(0), expected[0]) < FLOAT32
    assert out[:, batch:].isnan().all()
    if columns >= 256:
        assert all(split.abs().max() > 0 for split in out[:, :batch])


def test_splits_fill_the_device():
    for n_embd in (1024, 768):
        for columns in (n_embd, 4 * n_embd):
            weight = torch.empty(n_embd, columns, device="meta", dtype=torch.bfloat16)
            splits = partial_splits(weight, torch.bfloat16)
            assert 1 <= splits <= 8
            h, out = torch.empty(9, columns, device="meta"), torch.empty(splits, 9, n_embd, device="meta")
            with recording() as launches:
                linear_partial(h, weight, None, out)
            assert launches[0].grid[1] == splits


SLICES = [(10, 50), (100, 33)]


@pytest.mark.parametrize("stop_row", [-1, 7])
@pytest.mark.parametrize("slices", [SLICES, [(0, 40)], [*SLICES, (3, 20)]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_head_gives_each_row_its_own_slice(dtype, slices, stop_row):
    columns = max(width for _, width in slices) + (stop_row >= 0)
    weight, _ = matrix(140, 96, dtype, False)
    slots = slot_table(
        pack_slot(position=1, limit=9, seed=1, temperature=0.7),
        pack_slot(position=1, limit=9, seed=2, temperature=0.7, phase=1, first_draw=9),
        pack_slot(position=1, limit=9, seed=1 << 63, temperature=0.0),
        pack_slot(position=1, limit=9, status=2),
        pack_slot(position=1, limit=9, seed=5, temperature=1.0, phase=1),
    )
    slots[1, 1], slots[4, 1] = 2, 1
    rows = row_list(4, -1, 0, 3, 2, 1)
    h = randn(8, 96, dtype=dtype)
    h[6:] = float("nan")
    table = torch.tensor(slices, dtype=torch.int32, device=device())
    actual, expected = ([poison(8, columns), poison(8, columns)] for _ in range(2))
    linear_head(h, weight, table, stop_row, *actual, rows, slots, stage=1)
    linear_head_reference(h, weight, table, stop_row, *expected, rows, slots, stage=1)
    assert same(actual[0], expected[0], FLOAT32)
    # Noise is two logarithms of the same random number.
    assert same(actual[1], expected[1], 1e-5)
    assert (actual[1][4].nan_to_num(0) == 0).all() and actual[1][0, 0] != 0


def outputs(rows, dtype, int8):
    """All outputs of the linear layers for `rows`; slot s has the same input numbers in any batch."""
    n_slots, n_head, head_dim, n_embd = 70, 2, 48, 96
    slots = running_slots([slot % 100 for slot in range(n_slots)])
    h = randn(n_slots, n_embd, dtype=dtype)[rows].contiguous()
    wide = randn(n_slots, 4 * n_embd, dtype=dtype, seed=1)[rows].contiguous()
    batch, row_numbers = len(rows), row_list(*rows)
    weight, scale = matrix(4 * n_embd, n_embd, dtype, int8)
    projection, projection_scale = matrix(n_embd, 4 * n_embd, dtype, int8)
    qkv_scale = None if scale is None else scale[: 3 * n_embd]
    q, (keys, values) = poison(batch, n_embd), caches(n_slots, n_head, head_dim, dtype)
    linear_qkv(h, weight[: 3 * n_embd], qkv_scale, None, q, keys, values, row_numbers, slots)
    hidden, partial = poison(batch, 4 * n_embd, dtype=dtype), poison(3, batch, n_embd)
    linear_gelu(h, weight, scale, None, hidden)
    linear_partial(wide, projection, projection_scale, partial)
    logits, noise = poison(batch, 50), poison(batch, 50)
    table = torch.tensor(SLICES, dtype=torch.int32, device=device())
    head, _ = matrix(140, n_embd, dtype, False)
    linear_head(h, head, table, -1, logits, noise, row_numbers, slots, stage=1)
    at = [slot % 100 for slot in rows]
    return [q, keys[rows, :, at], values[rows, :, at], hidden, partial.transpose(0, 1), logits, noise]


@pytest.mark.sweep(2)
@pytest.mark.parametrize(("dtype", "int8"), STORAGE)
def test_a_row_does_not_depend_on_its_batch(dtype, int8):
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0)).tolist()
    whole = outputs(order, dtype, int8)
    assert all(not result.isnan().any() for result in whole[:-2])
    for batch in BATCHES:
        some = order[70 - batch :]
        for result, all_rows in zip(outputs(some, dtype, int8), whole, strict=True):
            assert torch.equal(result.nan_to_num(-77), all_rows[70 - batch :].nan_to_num(-77))
