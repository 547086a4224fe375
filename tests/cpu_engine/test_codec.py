"""The native codec: against plain torch, as a stream, at every instruction-set level, and in other shapes."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from barkfast.config import CodecConfig
from barkfast.errors import EngineError, InputError
from barkfast.models.encodec import EncodecDecoder
from barkfast.native import load_native, native_status
from barkfast.runtime.cpu.codec import CpuCodec
from barkfast.runtime.torch_ import TorchCodec
from barkfast.weights.files import Tensors
from barkfast.weights.random import make_codec, open_random

native = load_native()
if native is None:
    pytest.skip(native_status()[1], allow_module_level=True)

# Both sides are float32: they differ only in the order of their sums.
ATOL = 1e-5

# Channels that are no multiple of 16, the width of a panel.
SMALL = CodecConfig(n_codebooks=4, codebook_size=64, dimension=24, n_filters=6, ratios=(4, 3, 2))

VARIATIONS = {
    "as published": SMALL,
    "one LSTM layer": replace(SMALL, n_lstm_layers=1),
    "no shortcut": replace(SMALL, conv_shortcut=False),
    "dilated": replace(SMALL, n_residual_layers=2),
    "dilated by 3, twice": replace(SMALL, n_residual_layers=3, dilation_base=3, residual_kernel_size=5),
    "no residual layers": replace(SMALL, n_residual_layers=0),
    "compressed": replace(SMALL, compress=4, n_filters=8),
    "one stage": replace(SMALL, ratios=(5,)),
    "five stages, one of them idle": replace(SMALL, ratios=(3, 1, 2, 2, 2)),
    "narrow kernels": replace(SMALL, kernel_size=1, last_kernel_size=3, residual_kernel_size=1),
    # The left edge needs several frames of look-ahead in the last layers too; a frame is no multiple of 16 samples.
    "wide kernels": replace(SMALL, kernel_size=9, last_kernel_size=31, residual_kernel_size=7, ratios=(2, 1)),
    "one codebook": replace(SMALL, n_codebooks=1),
}


@cache
def weights(config: CodecConfig) -> Tensors:
    """Random weights with biases that are not zero, as in the published codec."""
    generator = torch.Generator().manual_seed(1)
    tensors = make_codec(config, generator)
    for name, tensor in tensors.items():
        if ".bias" in name:
            tensor.normal_(0, 0.2, generator=generator)
    return tensors


@cache
def reference(config: CodecConfig) -> TorchCodec:
    model = EncodecDecoder(config)
    model.load_state_dict(weights(config))
    return TorchCodec(model.eval())


def make(config: CodecConfig = SMALL, threads: int = 1, isa: str = "") -> CpuCodec:
    return CpuCodec(config, weights(config), pool=native.Pool(threads), isa=isa)


def draw_codes(config: CodecConfig, frames: int, codebooks: int | None = None, seed: int = 0) -> np.ndarray:
    shape = (codebooks or config.n_codebooks, frames)
    return np.random.default_rng(seed).integers(0, config.codebook_size, shape, np.int32)


def pieces(codes: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, codes.shape[1], size):
        yield codes[:, start : start + size]


@pytest.mark.parametrize("name", ["random:nano", "random:small"])
def test_equals_torch(name):
    codec = open_random(name).codec()
    model = EncodecDecoder(codec.config)
    model.load_state_dict(codec.tensors)
    torch_codec = TorchCodec(model.eval())
    cpu_codec = CpuCodec(codec.config, codec.tensors, pool=native.Pool(2))
    for frames in (1, 2, 3, 5, 40, 300):
        codes = draw_codes(codec.config, frames)
        samples = cpu_codec.decode(codes)
        assert samples.dtype == np.float32 and samples.shape == (frames * codec.config.hop_length,)
        np.testing.assert_allclose(samples, torch_codec.decode(codes), rtol=0, atol=ATOL)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_variations(variation):
    config = VARIATIONS[variation]
    codec = make(config)
    for frames in (1, 2, 3, 4, 7, 8, 16, 17, 45):
        codes = draw_codes(config, frames)
        np.testing.assert_allclose(codec.decode(codes), reference(config).decode(codes), rtol=0, atol=ATOL)


@pytest.mark.parametrize("codebooks", [1, 2, 3])
def test_fewer_codebooks(codebooks):
    codes = draw_codes(SMALL, 20, codebooks)
    np.testing.assert_allclose(make().decode(codes), reference(SMALL).decode(codes), rtol=0, atol=ATOL)


@pytest.mark.parametrize("variation", ["as published", "dilated by 3, twice", "wide kernels", "narrow kernels"])
def test_stream_gives_the_same_bits_in_any_pieces(variation):
    config = VARIATIONS[variation]
    codec = make(config, threads=2)
    for frames in (1, 2, 5, 7, 8, 40):
        codes = draw_codes(config, frames)
        whole = codec.decode(codes)
        for size in (1, 2, 7, 16, 19, frames):
            stream = codec.stream()
            parts = [stream.push(piece) for piece in pieces(codes, size)]
            parts.append(stream.finish())
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_stream_waits_for_its_lead_in_only():
    codec = make()
    stream = codec.stream()
    # The first convolution's 7 taps.
    assert stream.lead_in == 7
    counts = [stream.push(piece).size for piece in pieces(draw_codes(SMALL, 9), 1)]
    assert counts == [0] * 6 + [7 * SMALL.hop_length, SMALL.hop_length, SMALL.hop_length]
    assert stream.finish().size == 0


def test_streams_at_once():
    codec = make()
    codes = [draw_codes(SMALL, 30, seed=seed) for seed in range(3)]
    streams = [codec.stream() for _ in codes]
    parts: list[list[np.ndarray]] = [[] for _ in codes]
    for start in range(0, 30, 4):
        for stream, own, taken in zip(streams, codes, parts, strict=True):
            taken.append(stream.push(own[:, start : start + 4]))
    for own, taken in zip(codes, parts, strict=True):
        np.testing.assert_array_equal(np.concatenate(taken), codec.decode(own))


def test_a_clip_leaves_nothing_behind():
    """What a long clip leaves in the buffers does not change a short clip after it."""
    codec, fresh = make(VARIATIONS["wide kernels"]), make(VARIATIONS["wide kernels"])
    codec.decode(draw_codes(SMALL, 50, seed=1))
    codes = draw_codes(SMALL, 3)
    np.testing.assert_array_equal(codec.decode(codes), fresh.decode(codes))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads):
    # Wide enough that the LSTM's steps are split among threads.
    config = replace(SMALL, n_filters=32)
    codes = draw_codes(config, 20)
    np.testing.assert_array_equal(make(config, threads).decode(codes), make(config).decode(codes))


@pytest.mark.parametrize("isa", native.supported_isas())
def test_levels_agree(isa):
    config = VARIATIONS["dilated"]
    codes = draw_codes(config, 20)
    samples = make(config, isa=isa).decode(codes)
    np.testing.assert_allclose(samples, make(config, isa="scalar").decode(codes), rtol=0, atol=ATOL)


def test_no_frames():
    codec = make()
    nothing = draw_codes(SMALL, 0)
    assert codec.decode(nothing).shape == (0,)
    stream = codec.stream()
    assert stream.push(nothing).shape == (0,) and stream.finish().shape == (0,)


def test_other_integers_and_strides():
    codec = make()
    codes = draw_codes(SMALL, 20)
    whole = codec.decode(codes)
    np.testing.assert_array_equal(codec.decode(codes.astype(np.int64)), whole)
    np.testing.assert_array_equal(codec.decode(np.asfortranarray(codes)), whole)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros(4, np.int32),
        np.zeros((5, 3), np.int32),
        np.zeros((0, 3), np.int32),
        np.zeros((4, 3), np.float32),
        np.full((4, 3), 64, np.int32),
        np.full((4, 3), -1, np.int32),
    ],
)
def test_refuses_codes(codes):
    codec = make()
    with pytest.raises(InputError, match="codes"):
        codec.decode(codes)
    with pytest.raises(InputError, match="codes"):
        codec.stream().push(codes)


def test_native_refuses_codes_itself():
    codec = make()._native
    for codes in (np.full((4, 1), 64, np.int32), np.zeros((5, 1), np.int32), np.zeros(4, np.int32)):
        with pytest.raises(ValueError, match="code"):
            codec.decode(codes)


def test_stream_refuses_codes():
    stream = make().stream()
    stream.push(draw_codes(SMALL, 2))
    with pytest.raises(InputError, match="2 codebooks after 4"):
        stream.push(draw_codes(SMALL, 2, codebooks=2))
    # A refused call changes nothing: the stream goes on.
    assert stream.finish().size == 2 * SMALL.hop_length
    with pytest.raises(InputError, match="finished"):
        stream.push(draw_codes(SMALL, 2))
    with pytest.raises(InputError, match="finished"):
        stream.finish()


def test_refuses_a_codec_that_looks_ahead():
    config = replace(SMALL, trim_right_ratio=0.5)
    with pytest.raises(EngineError, match=r"trim_right_ratio is 0\.5"):
        CpuCodec(config, weights(SMALL), pool=native.Pool(1))


def test_refuses_weights_of_another_codec():
    with pytest.raises(ValueError, match="decoder.layers.1.lstm.weight_ih_l2"):
        CpuCodec(replace(SMALL, n_lstm_layers=3), weights(SMALL), pool=native.Pool(1))
    with pytest.raises(ValueError, match=r"\(12, 24, 3\), expected \(12, 24, 5\)"):
        CpuCodec(replace(SMALL, residual_kernel_size=5), weights(SMALL), pool=native.Pool(1))


def test_unknown_level():
    with pytest.raises(ValueError, match="sse9"):
        make(isa="sse9")
