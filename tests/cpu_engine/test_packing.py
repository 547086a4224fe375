"""Packed weights: each format against its definition in torch, the block's layout, and numbers that are refused."""

import numpy as np
import pytest
import torch
from torch import Tensor

from barkfast.config import FineConfig, GPTConfig
from barkfast.errors import EngineError
from barkfast.native import load_native, native_status
from barkfast.runtime.cpu.packing import FORMATS, SOURCES, Format, Packed, fits, pack_network, unpack_matrix
from barkfast.weights.random import make_gpt

native = load_native()
if native is None:
    pytest.skip(native_status()[1], allow_module_level=True)

# Smaller than, equal to and larger than a panel's rows, a step's columns and a group.
SHAPES = [(1, 1), (15, 3), (16, 32), (17, 33), (50, 70), (96, 128)]


def pack(source: Tensor, format: Format, threads: int = 1) -> tuple[Tensor, bool]:
    """Panels, and whether all numbers were finite; bytes that are not written keep the value 77."""
    rows, cols = source.shape
    panels = torch.full((native.packed_bytes(format, rows, cols),), 77, dtype=torch.uint8)
    kind = SOURCES[source.dtype]
    return panels, native.pack_matrix(source.data_ptr(), kind, rows, cols, format, panels.data_ptr(), threads)


def unpack(panels: Tensor, format: Format, rows: int, cols: int) -> Tensor:
    numbers = torch.full((rows, cols), torch.nan)
    native.unpack_matrix(format, rows, cols, panels.data_ptr(), numbers.data_ptr())
    return numbers


def round_to(format: Format, w: Tensor) -> Tensor:
    """Round (rows, cols) float32 weights as the format's definition says."""
    if format == Format.F32:
        return w
    if format == Format.BF16:
        return w.bfloat16().float()
    groups = torch.nn.functional.pad(w, (0, -w.shape[1] % 32)).view(len(w), -1, 32)
    most = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    scale = (most.abs() / 127 if format == Format.INT8 else most / -8).bfloat16().float()
    low, high = (-127, 127) if format == Format.INT8 else (-8, 7)
    steps = torch.where(scale != 0, groups / scale, 0).round().clamp(low, high)
    return (steps * scale).view(len(w), -1)[:, : w.shape[1]]


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal bit for bit, except for the sign of zeros."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.sweep(24)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", SOURCES, ids=str)
@pytest.mark.parametrize("format", Format, ids=str)
def test_packing_rounds_as_defined(format: Format, dtype: torch.dtype, shape: tuple[int, int]):
    source = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    source[0] = 0
    panels, finite = pack(source, format)
    assert finite
    assert_same(unpack(panels, format, *shape), round_to(format, source.float()))


@pytest.mark.parametrize("format", Format, ids=str)
def test_every_byte_is_written_and_padding_weighs_nothing(format: Format):
    """17 rows and 33 columns leave 15 rows and part of a step or group; all this padding must be zero weights."""
    source = torch.randn(17, 33)
    panels, _ = pack(source, format)
    cols = {Format.F32: 33, Format.BF16: 34, Format.INT8: 64, Format.INT4: 64}[format]
    # The panels have the size of a matrix with rows and columns in place of the padding.
    assert len(panels) == native.packed_bytes(format, 32, cols)
    everything = unpack(panels, format, 32, cols)
    assert not everything[17:].any() and not everything[:, 33:].any()
    again = torch.zeros_like(panels)
    native.pack_matrix(source.data_ptr(), "f32", 17, 33, format, again.data_ptr(), 1)
    assert torch.equal(panels, again), "some bytes kept what was there before"


@pytest.mark.parametrize("format", Format, ids=str)
def test_threads_change_nothing(format: Format):
    source = torch.randn(700, 96)
    assert torch.equal(pack(source, format)[0], pack(source, format, threads=3)[0])


@pytest.mark.parametrize("dtype", SOURCES, ids=str)
def test_sources_need_no_alignment(dtype: torch.dtype):
    """A safetensors file may begin its tensors at any byte."""
    source = torch.randn(20, 40).to(dtype)
    data = source.view(torch.uint8).flatten()
    shifted = torch.empty(len(data) + 1, dtype=torch.uint8)
    shifted[1:] = data
    expected, _ = pack(source, Format.BF16)
    panels = torch.empty_like(expected)
    native.pack_matrix(shifted.data_ptr() + 1, SOURCES[dtype], 20, 40, Format.BF16, panels.data_ptr(), 1)
    assert torch.equal(panels, expected)


def test_half_precision_sources_are_read_exactly():
    """All of float16's numbers, subnormal ones included."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    numbers = every[every.isfinite()].view(-1, 32).contiguous()
    panels, finite = pack(numbers, Format.F32)
    assert finite
    assert_same(unpack(panels, Format.F32, *numbers.shape), numbers.float())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", SOURCES, ids=str)
@pytest.mark.parametrize("format", Format, ids=str)
def test_numbers_that_are_not_finite_are_noticed(format: Format, dtype: torch.dtype, bad: float):
    for row, col in ((0, 0), (33, 39), (20, 5)):
        source = torch.randn(34, 40).to(dtype)
        source[row, col] = bad
        assert not pack(source, format)[1], (row, col)


def test_numbers_that_round_to_infinity_are_noticed():
    source = torch.full((1, 1), torch.finfo(torch.float32).max)
    assert pack(source, Format.F32)[1] and not pack(source, Format.BF16)[1]
    assert pack(torch.full((1, 1), torch.finfo(torch.bfloat16).max), Format.BF16)[1]


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-30, 1e30])
@pytest.mark.parametrize("format", [Format.INT8, Format.INT4], ids=str)
def test_extreme_magnitudes_stay_in_range(format: Format, size: float):
    source = torch.linspace(-1, 1, 64)[None] * size
    panels, finite = pack(source, format)
    assert finite
    found = unpack(panels, format, *source.shape)
    assert found.isfinite().all() and found.abs().max() <= 1.2 * source.abs().max() + 1e-40


def test_int4_meets_the_largest_weight_of_a_group_whatever_its_sign():
    for sign in (1, -1):
        source = torch.linspace(-0.5, 0.5, 32)[None] * 0.5
        source[0, 7] = sign
        panels, _ = pack(source, Format.INT4)
        assert unpack(panels, Format.INT4, 1, 32)[0, 7] == sign


def make_config(**changes: int) -> GPTConfig:
    return GPTConfig(2, 2, 64, 96, 80, 128, **changes)


def read_vector(packed: Packed, name: str) -> np.ndarray:
    piece = next(piece for piece in packed.pieces if piece.name == name)
    return packed.block[piece.offset : piece.offset + piece.size].view(np.float32)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_network_is_packed_whole(dtype: str):
    config = make_config()
    tensors = make_gpt(config, torch.Generator().manual_seed(0))
    tensors["transformer.h.1.ln_1.bias"] = torch.randn(64)
    packed = pack_network(config, tensors, dtype, what="the network", threads=2)
    assert [entry[0] for entry in packed.entries] == list(tensors)
    formats = FORMATS[dtype]
    for name, kind, format, rows, cols, address in packed.entries:
        tensor = tensors[name]
        assert (rows, cols) == ((len(tensor), 1) if tensor.dim() == 1 else tuple(tensor.shape))
        assert address % 64 == 0
        assert (kind == "table") == (name in ("transformer.wte.weight", "transformer.wpe.weight"))
        if kind == "matrix":
            layer = formats.first if name.startswith("transformer.h.0.") else formats.matrices
            assert format == (formats.heads if name == "lm_head.weight" else layer)
            assert_same(unpack_matrix(packed, name), round_to(Format(format), tensor))
        elif kind == "vector":
            np.testing.assert_array_equal(read_vector(packed, name), tensor.numpy())
        else:
            piece = next(piece for piece in packed.pieces if piece.name == name)
            numbers = torch.from_numpy(packed.block[piece.offset : piece.offset + piece.size])
            stored = torch.float32 if format == Format.F32 else torch.bfloat16
            assert torch.equal(numbers.view(stored).view(rows, cols), tensor.to(stored))
    ends = [piece.end for piece in packed.pieces]
    assert [piece.offset for piece in packed.pieces] == [0, *ends[:-1]] and ends[-1] == len(packed.block)


def test_the_fine_networks_heads_are_its_tables_too():
    config = FineConfig(1, 2, 64, 96, 96, 128, bias=False)
    tensors = make_gpt(config, torch.Generator().manual_seed(0))
    tensors["transformer.wtes.3.weight"] = torch.zeros(96, 64)
    packed = pack_network(config, tensors, "float32", what="the fine network")
    np.testing.assert_array_equal(
        read_vector(packed, "transformer.wtes.3.weight").reshape(96, 64), tensors["lm_heads.2.weight"]
    )


def test_vectors_are_filled_up_with_zeros():
    config = GPTConfig(1, 1, 16, 32, 32, 16)
    tensors = make_gpt(config, torch.Generator().manual_seed(0)) | {"transformer.ln_f.weight": torch.ones(5)}
    packed = pack_network(config, tensors, "float32", what="the network")
    assert read_vector(packed, "transformer.ln_f.weight").tolist() == [1.0] * 5 + [0.0] * 11


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_and_strides_are_converted(dtype: torch.dtype):
    config = make_config()
    tensors = make_gpt(config, torch.Generator().manual_seed(0))
    name = "transformer.h.0.mlp.c_fc.weight"
    plain = pack_network(config, tensors, "bfloat16", what="the network")
    strided = tensors[name].to(dtype).t().contiguous().t()
    converted = pack_network(config, {**tensors, name: strided}, "bfloat16", what="the network")
    np.testing.assert_array_equal(plain.block, converted.block)


@pytest.mark.parametrize(
    "name", ["transformer.wte.weight", "transformer.h.1.mlp.c_proj.weight", "transformer.ln_f.bias"]
)
@pytest.mark.parametrize("dtype", FORMATS)
def test_a_tensor_with_nan_is_named(name: str, dtype: str):
    config = make_config()
    tensors = make_gpt(config, torch.Generator().manual_seed(0))
    tensors[name].view(-1)[-1] = torch.nan
    with pytest.raises(EngineError, match=f"the coarse network's {name} holds NaN or infinity.*get it again"):
        pack_network(config, tensors, dtype, what="the coarse network")


def test_networks_that_do_not_fit_say_why():
    assert fits(make_config()) is None
    assert "heads are 21 wide" in (fits(GPTConfig(2, 3, 63)) or "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "f32", 1, 1, 0, 64, 1), "a source of 1 x 1 numbers at address 0"),
        ((64, "f32", 0, 1, 0, 64, 1), "a source of 0 x 1 numbers"),
        ((64, "f64", 1, 1, 0, 64, 1), "type is 'f64'; expected f32, bf16 or f16"),
        ((64, "f32", 1, 1, 4, 64, 1), "format is 4; expected 0 to 3"),
        ((64, "f32", 1, 1, 0, 0, 1), "address 0"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_read(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        native.pack_matrix(*arguments)
