"""The decode step's matrix kernels: norm_qkv, attention_out, norm_fc_gelu and proj_residual."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from barkfast_kernels.attention_out import attention_out, attention_out_reference
from barkfast_kernels.launch import INTERPRETED
from barkfast_kernels.norm_fc_gelu import norm_fc_gelu, norm_fc_gelu_reference
from barkfast_kernels.norm_qkv import norm_qkv, norm_qkv_reference
from barkfast_kernels.proj_residual import proj_residual, proj_residual_reference
from barkfast_kernels.slots import FINISHED, pack_slot
from barkfast_kernels.tiles import row_tile
from ops import tools

BLOCK_SIZE = 1024
SPLITS = 8
POSITIONS = [0, 1, 63, 64, 1023, 500]
# n_embd, n_head: head_dim is 16, 48 (and a number of heads that is no power of two), 64.
SIZES = [(64, 4), (144, 3), (128, 2)]
if not INTERPRETED:
    SIZES += [(768, 12), (1024, 16)]

State = dict[str, Tensor]


def parameters(n_rows: int, n_columns: int, dtype: torch.dtype, *, biases: bool, int8: bool, seed: int = 0) -> State:
    weight = tools.randn(n_rows, n_columns, seed=seed, scale=n_columns**-0.5)
    scale = None
    if int8:
        weight, scale = tools.quantize(weight)
    return {
        "weight": weight if int8 else weight.to(dtype),
        "scale": scale,
        "bias": tools.randn(n_rows, dtype=dtype, seed=seed + 1) if biases else None,
    }


def norms(n_embd: int, dtype: torch.dtype, *, biases: bool) -> State:
    return {
        "norm_weight": 1 + tools.randn(n_embd, dtype=dtype, seed=5, scale=0.1),
        "norm_bias": tools.randn(n_embd, dtype=dtype, seed=6, scale=0.1) if biases else None,
    }


def residual_stream(n_embd: int) -> Tensor:
    """A row per slot; the mean is not zero, as in real networks."""
    return tools.randn(len(POSITIONS), n_embd, seed=7) * 3 + 0.5


def splits(n_embd: int, n_head: int) -> State:
    """Outputs of decode_attention for sequences from one position (seven splits empty) to full ones."""
    batch = len(POSITIONS)
    partial = tools.randn(batch, n_head, SPLITS, n_embd // n_head, seed=8)
    stats = tools.randn(batch, n_head, SPLITS, 2, seed=9)
    stats[..., 0] *= 20
    stats[..., 1] = stats[..., 1].abs() + 1
    for row in range(batch):
        partial[row, :, row + 1 :] = 0
        stats[row, :, row + 1 :, 0] = float("-inf")
        stats[row, :, row + 1 :, 1] = 0
    return {"partial": partial, "stats": stats}


def qkv_case(size: tuple[int, int], dtype: torch.dtype, *, biases: bool, int8: bool) -> State:
    n_embd, n_head = size
    cache = (len(POSITIONS), n_head, BLOCK_SIZE, n_embd // n_head)
    return {
        "x": residual_stream(n_embd),
        **norms(n_embd, dtype, biases=biases),
        **parameters(3 * n_embd, n_embd, dtype, biases=biases, int8=int8),
        "q": tools.poison(len(POSITIONS), n_embd),
        "keys": tools.poison(*cache, dtype=dtype),
        "values": tools.poison(*cache, dtype=dtype),
    }


def out_case(size: tuple[int, int], dtype: torch.dtype, *, biases: bool, int8: bool) -> State:
    return {
        "x": residual_stream(size[0]),
        **splits(*size),
        **parameters(size[0], size[0], dtype, biases=biases, int8=int8),
    }


def fc_case(size: tuple[int, int], dtype: torch.dtype, *, biases: bool, int8: bool) -> State:
    return {
        "x": residual_stream(size[0]),
        **norms(size[0], dtype, biases=biases),
        **parameters(4 * size[0], size[0], dtype, biases=biases, int8=int8),
        "hidden": tools.poison(len(POSITIONS), 4 * size[0], dtype=dtype),
    }


def proj_case(size: tuple[int, int], dtype: torch.dtype, *, biases: bool, int8: bool) -> State:
    return {
        "x": residual_stream(size[0]),
        "hidden": tools.randn(len(POSITIONS), 4 * size[0], dtype=dtype, seed=10),
        **parameters(size[0], 4 * size[0], dtype, biases=biases, int8=int8),
    }


# Kernel, reference, function that makes their arguments, names of their outputs.
CASES = {
    "norm_qkv": (norm_qkv, norm_qkv_reference, qkv_case, ("q", "keys", "values")),
    "attention_out": (attention_out, attention_out_reference, out_case, ("x",)),
    "norm_fc_gelu": (norm_fc_gelu, norm_fc_gelu_reference, fc_case, ("hidden",)),
    "proj_residual": (proj_residual, proj_residual_reference, proj_case, ("x",)),
}
# Outputs that are indexed by row; the others by slot.
BY_ROW = ("q", "hidden")


def run(kernel: Callable, state: State, rows: Tensor, slots: Tensor) -> State:
    state = {name: None if tensor is None else tensor.clone() for name, tensor in state.items()}
    kernel(**state, rows=rows, slots=slots, pdl=False)
    return state


def check(actual: State, expected: State, names: tuple[str, ...], dtype: torch.dtype) -> None:
    """Equal within rounding where the reference wrote, untouched elsewhere."""
    for name in names:
        a, e = actual[name], expected[name]
        written = ~torch.isnan(e)
        assert torch.equal(torch.isnan(a), ~written), name
        # Attention's values and the residual stream are float32 whatever the weights are stored in.
        tolerance = tools.TOLERANCE[e.dtype]
        assert tools.rms_error(a[written], e[written]) < tolerance, (name, dtype)


@pytest.mark.sweep(12)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("dtype", tools.DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no-biases"])
def test_is_the_reference(name: str, dtype: torch.dtype, size: tuple[int, int], biases: bool) -> None:
    kernel, reference, case, outputs = CASES[name]
    state = case(size, dtype, biases=biases, int8=False)
    slots = tools.running_slots(POSITIONS)
    rows = tools.row_list(4, 0, 5, 2, 3, 1)
    expected = {key: None if tensor is None else tensor.clone() for key, tensor in state.items()}
    reference(**expected, rows=rows, slots=slots)
    check(run(kernel, state, rows, slots), expected, outputs, dtype)


@pytest.mark.parametrize("dtype", tools.DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_int8_weights(name: str, dtype: torch.dtype) -> None:
    kernel, reference, case, outputs = CASES[name]
    state = case((96, 2), dtype, biases=True, int8=True)
    slots = tools.running_slots(POSITIONS)
    rows = tools.row_list(1, 2)
    expected = {key: None if tensor is None else tensor.clone() for key, tensor in state.items()}
    reference(**expected, rows=rows, slots=slots)
    check(run(kernel, state, rows, slots), expected, outputs, dtype)


@pytest.mark.parametrize("name", CASES)
def test_skips_rows_that_do_not_run(name: str) -> None:
    kernel, reference, case, outputs = CASES[name]
    state = case((96, 2), torch.float32, biases=True, int8=False)
    slots = tools.running_slots(POSITIONS)
    slots[3] = pack_slot(position=3, limit=1000, status=FINISHED.value)
    rows = tools.row_list(-1, 5, 3, -1, 2)
    expected = {key: None if tensor is None else tensor.clone() for key, tensor in state.items()}
    reference(**expected, rows=rows, slots=slots)
    actual = run(kernel, state, rows, slots)
    check(actual, expected, outputs, torch.float32)
    for output in outputs:
        untouched = [0, 2, 3, 5] if output in BY_ROW else [0, 1, 3, 4]
        torch.testing.assert_close(actual[output][untouched], state[output][untouched], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("rows", [[-1], [-1, -1]], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_nothing_runs(name: str, rows: list[int]) -> None:
    kernel, _, case, outputs = CASES[name]
    state = case((64, 4), torch.float32, biases=False, int8=False)
    actual = run(kernel, state, tools.row_list(*rows), tools.running_slots(POSITIONS))
    for output in outputs:
        torch.testing.assert_close(actual[output], state[output], rtol=0, atol=0, equal_nan=True)


@pytest.mark.sweep(6)
@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("dtype", tools.DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_row_alone_is_the_same_bits(name: str, dtype: torch.dtype, int8: bool) -> None:
    kernel, _, case, outputs = CASES[name]
    state = case((96, 2) if INTERPRETED else (1024, 16), dtype, biases=True, int8=int8)
    slots = tools.running_slots(POSITIONS)
    order = [4, 2, 0, 5]
    together = run(kernel, state, tools.row_list(*order), slots)
    for row, slot in enumerate(order):
        # A row's scratch moves with it.
        moved = {
            key: tensor[row : row + 1].clone() if key in ("partial", "stats", "hidden", "q") else tensor
            for key, tensor in state.items()
        }
        alone = run(kernel, moved, tools.row_list(slot), slots)
        for output in outputs:
            a, b = (
                (alone[output][0], together[output][row])
                if output in BY_ROW
                else (
                    alone[output][slot],
                    together[output][slot],
                )
            )
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_norm_qkv_beyond_the_cache() -> None:
    state = qkv_case((64, 4), torch.float32, biases=True, int8=False)
    slots = tools.running_slots([BLOCK_SIZE, 3, 0, 0, 0, 0])
    actual = run(norm_qkv, state, tools.row_list(0, 1), slots)
    assert not torch.isnan(actual["q"][:2]).any()
    assert torch.isnan(actual["keys"]).sum() == actual["keys"].numel() - 64
    assert not torch.isnan(actual["values"][1, :, 3]).any()


def test_tiles_cover_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barkfast_kernels.tiles.INTERPRETED", False)
    device = torch.device("cpu")
    for n_rows, n_columns in [
        (3072, 1024),
        (1024, 1024),
        (4096, 1024),
        (1024, 4096),
        (2304, 768),
        (768, 3072),
        (7, 96),
    ]:
        tile = row_tile(n_rows, n_columns, device)
        assert (tile.programs - 1) * tile.block_n < n_rows <= tile.programs * tile.block_n
        assert n_columns <= tile.block_k < 2 * n_columns
        assert tile.block_n * tile.block_k <= 64 * 32 * tile.num_warps
    # The sizes of Bark's large models on an H100.
    assert [row_tile(*size, device).block_n for size in [(3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096)]] == [
        8, 8, 8, 4
    ]  # fmt: skip
