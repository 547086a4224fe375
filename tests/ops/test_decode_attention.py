"""decode_attention and combine_splits against their references."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from barkfast_kernels.decode_attention import (
    combine_splits,
    combine_splits_reference,
    decode_attention,
    decode_attention_reference,
)
from barkfast_kernels.slots import STOPPED, pack_slot
from ops import tools

POSITIONS = [0, 1, 63, 64, 500, 1023]
# n_head, head_dim
HEADS = [(2, 64), (3, 48), (2, 16), (1, 128)]


def caches(
    n_slots: int, n_head: int, head_dim: int, dtype: torch.dtype, block_size: int = 1024
) -> tuple[Tensor, Tensor]:
    return tuple(tools.randn(n_slots, n_head, block_size, head_dim, dtype=dtype, seed=seed) for seed in (1, 2))


def outputs(batch: int, n_head: int, splits: int, head_dim: int) -> tuple[Tensor, Tensor]:
    return tools.poison(batch, n_head, splits, head_dim), tools.poison(batch, n_head, splits, 2)


def check(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Equal within rounding, and NaN (not written) or infinite (empty split) in the same places."""
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(torch.isnan(a), torch.isnan(e))
        assert torch.equal(torch.isinf(a), torch.isinf(e))
        finite = torch.isfinite(e)
        assert tools.rms_error(a[finite], e[finite]) < tools.TOLERANCE[torch.float32]


@pytest.mark.sweep(6)
@pytest.mark.parametrize("splits", [8, 3, 1])
@pytest.mark.parametrize("heads", HEADS, ids=lambda heads: f"{heads[0]}x{heads[1]}")
@pytest.mark.parametrize("dtype", tools.DTYPES, ids=str)
def test_is_the_reference(dtype: torch.dtype, heads: tuple[int, int], splits: int) -> None:
    n_head, head_dim = heads
    keys, values = caches(len(POSITIONS), n_head, head_dim, dtype)
    for slot, position in enumerate(POSITIONS):
        keys[slot, :, position + 1 :] = math.nan
        values[slot, :, position + 1 :] = math.nan
    q = tools.randn(len(POSITIONS), n_head * head_dim, seed=3, scale=3.0)
    slots, rows = tools.running_slots(POSITIONS), tools.row_list(5, 0, 3, 1, 4, 2)
    actual, expected = (outputs(len(POSITIONS), n_head, splits, head_dim) for _ in range(2))
    decode_attention(q, keys, values, *actual, rows, slots, pdl=False)
    decode_attention_reference(q, keys, values, *expected, rows, slots)
    assert not torch.isnan(expected[0]).any()
    check(actual, expected)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("heads", HEADS, ids=lambda heads: f"{heads[0]}x{heads[1]}")
@pytest.mark.parametrize("dtype", tools.DTYPES, ids=str)
def test_combined_is_attention(dtype: torch.dtype, heads: tuple[int, int]) -> None:
    n_head, head_dim = heads
    keys, values = caches(len(POSITIONS), n_head, head_dim, dtype)
    q = tools.randn(len(POSITIONS), n_head * head_dim, seed=3, scale=3.0)
    slots, rows = tools.running_slots(POSITIONS), tools.row_list(5, 0, 3, 1, 4, 2)
    partial, stats = outputs(len(POSITIONS), n_head, 8, head_dim)
    out = tools.poison(len(POSITIONS), n_head * head_dim, dtype=dtype)
    decode_attention(q, keys, values, partial, stats, rows, slots, pdl=False)
    combine_splits(partial, stats, out, rows, slots, pdl=False)
    for row, slot in enumerate(rows.tolist()):
        k, v = (cache[slot : slot + 1, :, : POSITIONS[slot] + 1].double() for cache in (keys, values))
        query = q[row].view(1, n_head, 1, head_dim).double()
        expected = F.scaled_dot_product_attention(query, k, v)
        assert tools.rms_error(out[row], expected.flatten()) < tools.TOLERANCE[dtype]


def test_chunk_boundaries() -> None:
    """Every length of a short cache, so that splits end on, before and after a tile's end."""
    keys, values = caches(1, 1, 16, torch.float32, block_size=40)
    q = tools.randn(1, 16, seed=3)
    for position in range(41):
        slots = tools.running_slots([position])
        actual, expected = (outputs(1, 1, 4, 16) for _ in range(2))
        decode_attention(q, keys, values, *actual, tools.row_list(0), slots, pdl=False)
        decode_attention_reference(q, keys, values, *expected, tools.row_list(0), slots)
        check(actual, expected)


def test_large_scores() -> None:
    """Nothing overflows where scores are far apart, across tiles and across splits."""
    keys, values = caches(1, 1, 64, torch.float32)
    q = tools.randn(1, 64, seed=3, scale=1000.0)
    slots, rows = tools.running_slots([1023]), tools.row_list(0)
    for splits in (1, 8):
        partial, stats = outputs(1, 1, splits, 64)
        out = tools.poison(1, 64)
        decode_attention(q, keys, values, partial, stats, rows, slots, pdl=False)
        combine_splits(partial, stats, out, rows, slots, pdl=False)
        expected = F.scaled_dot_product_attention(q.view(1, 1, 1, 64).double(), keys.double(), values.double())
        # Scores are in the thousands, where float32 is less exact.
        assert tools.rms_error(out, expected.flatten()[None]) < 1e-3


def test_skips_rows_that_do_not_run() -> None:
    keys, values = caches(3, 2, 16, torch.float32, block_size=64)
    q = tools.randn(4, 32, seed=3)
    slots = tools.running_slots([5, 6, 7])
    slots[1] = pack_slot(position=6, limit=1000, status=STOPPED.value)
    rows = tools.row_list(-1, 2, 1, 0)
    partial, stats = outputs(4, 2, 8, 16)
    out = tools.poison(4, 32)
    decode_attention(q, keys, values, partial, stats, rows, slots, pdl=False)
    combine_splits(partial, stats, out, rows, slots, pdl=False)
    for tensor in (partial, stats, out):
        assert torch.isnan(tensor[[0, 2]]).all()
        assert not torch.isnan(tensor[[1, 3]]).any()


@pytest.mark.parametrize("n_head", [2, 12, 6])
@pytest.mark.parametrize("dtype", tools.DTYPES, ids=str)
def test_combine_splits_is_the_reference(dtype: torch.dtype, n_head: int) -> None:
    partial = tools.randn(3, n_head, 8, 48, seed=4)
    stats = tools.randn(3, n_head, 8, 2, seed=5, scale=10.0)
    stats[..., 1] = stats[..., 1].abs() + 1
    partial[1, :, 1:], stats[1, :, 1:, 0], stats[1, :, 1:, 1] = 0, -math.inf, 0
    slots, rows = tools.running_slots([9, 9, 9]), tools.row_list(2, 0, 1)
    actual, expected = (tools.poison(3, n_head * 48, dtype=dtype) for _ in range(2))
    combine_splits(partial, stats, actual, rows, slots, pdl=False)
    combine_splits_reference(partial, stats, expected, rows, slots)
    assert tools.rms_error(actual, expected) < tools.TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", tools.DTYPES, ids=str)
def test_a_row_alone_is_the_same_bits(dtype: torch.dtype) -> None:
    keys, values = caches(len(POSITIONS), 2, 48, dtype)
    q = tools.randn(len(POSITIONS), 96, seed=3)
    slots, order = tools.running_slots(POSITIONS), [4, 5, 0, 2]
    partial, stats = outputs(len(order), 2, 8, 48)
    decode_attention(q, keys, values, partial, stats, tools.row_list(*order), slots, pdl=False)
    for row, slot in enumerate(order):
        alone = outputs(1, 2, 8, 48)
        decode_attention(q[row : row + 1], keys, values, *alone, tools.row_list(slot), slots, pdl=False)
        assert torch.equal(alone[0][0], partial[row])
        assert torch.equal(alone[1][0], stats[row])
