"""A codec stream returns the samples of `decode`, on every engine. More tests of the cpu engine: tests/cpu_engine."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from barkfast.config import CodecConfig
from barkfast.errors import InputError
from barkfast.models.encodec import EncodecDecoder
from barkfast.native import load_native
from barkfast.runtime.cpu.codec import CpuCodec
from barkfast.runtime.cuda.codec import CudaCodec
from barkfast.runtime.decoder import Codec, CodecStream
from barkfast.runtime.torch_ import TorchCodec
from barkfast.weights.random import make_codec

DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
SMALL = CodecConfig(n_codebooks=4, codebook_size=64, dimension=24, n_filters=6, ratios=(4, 3, 2))
VARIATIONS = {
    "as published": SMALL,
    "one LSTM layer": replace(SMALL, n_lstm_layers=1),
    "no shortcut": replace(SMALL, conv_shortcut=False),
    "dilated by 3, twice": replace(SMALL, n_residual_layers=3, dilation_base=3, residual_kernel_size=5),
    "an idle stage": replace(SMALL, ratios=(3, 1, 2)),
    "narrow kernels": replace(SMALL, kernel_size=1, last_kernel_size=3, residual_kernel_size=1),
    # Lookahead of several frames in the last layers too.
    "wide kernels": replace(SMALL, kernel_size=9, last_kernel_size=31, residual_kernel_size=7, ratios=(2, 1)),
    "looks ahead": replace(SMALL, trim_right_ratio=0.5),
}
# Samples are about 1, and float sums are in another order; a GPU uses other algorithms too.
ATOL = 1e-6 if DEVICE.type == "cpu" else 1e-5


def make_model(config: CodecConfig = SMALL) -> EncodecDecoder:
    """A model of random weights and biases; the published codec has biases too."""
    generator = torch.Generator().manual_seed(1)
    tensors = make_codec(config, generator)
    for name, tensor in tensors.items():
        if ".bias" in name:
            tensor.normal_(0, 0.2, generator=generator)
    model = EncodecDecoder(config).requires_grad_(False).eval()
    model.load_state_dict(tensors)
    return model


@cache
def torch_codec(config: CodecConfig = SMALL) -> TorchCodec:
    return TorchCodec(make_model(config))


@cache
def cuda_codec(config: CodecConfig = SMALL) -> CudaCodec:
    return CudaCodec(make_model(config), device=DEVICE, dtype=torch.float32)


@cache
def cpu_codec(config: CodecConfig = SMALL) -> CpuCodec:
    native = load_native()
    if native is None:
        pytest.skip("no native module")
    return CpuCodec(config, make_model(config).state_dict(), pool=native.Pool(1))


ENGINES = {"torch": torch_codec, "cuda": cuda_codec, "cpu": cpu_codec}


@pytest.fixture(params=ENGINES)
def codec(request: pytest.FixtureRequest) -> Codec:
    return ENGINES[request.param]()


def draw_codes(frames: int, config: CodecConfig = SMALL, seed: int = 0, codebooks: int | None = None) -> np.ndarray:
    shape = (codebooks or config.n_codebooks, frames)
    return np.random.default_rng(seed).integers(0, config.codebook_size, shape, np.int32)


def pieces(codes: np.ndarray, *sizes: int) -> Iterator[np.ndarray]:
    """Cut the codes into pieces of these sizes, repeated in order."""
    start, index = 0, 0
    while start < codes.shape[1]:
        yield codes[:, start : start + sizes[index % len(sizes)]]
        start, index = start + sizes[index % len(sizes)], index + 1


def stream_all(codec: Codec, codes: np.ndarray, *sizes: int) -> np.ndarray:
    stream = codec.stream()
    assert isinstance(stream, CodecStream)
    parts = [stream.push(piece) for piece in pieces(codes, *sizes)]
    parts.append(stream.finish())
    assert all(part.dtype == np.float32 and part.ndim == 1 for part in parts)
    return np.concatenate(parts)


@pytest.mark.parametrize("engine", ["torch", "cuda"])
@pytest.mark.parametrize("variation", VARIATIONS)
def test_pieces_make_the_whole(engine: str, variation: str) -> None:
    config = VARIATIONS[variation]
    codec = ENGINES[engine](config)
    for frames in (1, 2, 6, 7, 8, 40):
        codes = draw_codes(frames, config)
        whole = codec.decode(codes)
        for sizes in ((1,), (3, 1, 7), (16,), (frames,)):
            samples = stream_all(codec, codes, *sizes)
            np.testing.assert_allclose(samples, whole, rtol=0, atol=ATOL, err_msg=f"{frames} frames by {sizes}")


def test_the_published_shape_to_a_millionth() -> None:
    """A second and a half of the 24 kHz codec with 8 codebooks, its layers a quarter as wide."""
    config = CodecConfig(n_filters=8)
    codec, codes = torch_codec(config), draw_codes(110, config)
    whole = codec.decode(codes)
    error = np.abs(stream_all(codec, codes, 7, 30, 15) - whole).max()
    assert error <= 1e-6 * max(1.0, float(np.abs(whole).max()))


def test_the_cpu_engine_gives_the_same_bits() -> None:
    codec = cpu_codec()
    for frames in (1, 6, 7, 40):
        codes = draw_codes(frames)
        for sizes in ((1,), (3, 1, 7), (frames,)):
            np.testing.assert_array_equal(stream_all(codec, codes, *sizes), codec.decode(codes))


@pytest.mark.parametrize("variation", [name for name in VARIATIONS if name != "looks ahead"])
def test_engines_agree_when_the_first_samples_come(variation: str) -> None:
    config = VARIATIONS[variation]
    assert torch_codec(config).stream().lead_in == cpu_codec(config).stream().lead_in


def test_waits_for_the_lead_in_only(codec: Codec) -> None:
    stream = codec.stream()
    # The first convolution's 7 taps.
    assert stream.lead_in == 7
    counts = [stream.push(piece).size for piece in pieces(draw_codes(9), 1)]
    assert counts == [0] * 6 + [7 * SMALL.hop_length, SMALL.hop_length, SMALL.hop_length]
    assert stream.finish().size == 0


def test_a_codec_that_looks_ahead_gives_all_at_the_end() -> None:
    config = VARIATIONS["looks ahead"]
    stream = torch_codec(config).stream()
    assert stream.lead_in is None
    assert stream.push(draw_codes(40)).size == 0
    np.testing.assert_array_equal(stream.finish(), torch_codec(config).decode(draw_codes(40)))


def test_streams_at_once(codec: Codec) -> None:
    codes = [draw_codes(30, seed=seed) for seed in range(3)]
    streams = [codec.stream() for _ in codes]
    parts: list[list[np.ndarray]] = [[] for _ in codes]
    for start in range(0, 30, 4):
        for stream, own, taken in zip(streams, codes, parts, strict=True):
            taken.append(stream.push(own[:, start : start + 4]))
    for own, taken in zip(codes, parts, strict=True):
        np.testing.assert_allclose(np.concatenate(taken), codec.decode(own), rtol=0, atol=ATOL)


def test_fewer_codebooks(codec: Codec) -> None:
    codes = draw_codes(20, codebooks=2)
    np.testing.assert_allclose(stream_all(codec, codes, 5), codec.decode(codes), rtol=0, atol=ATOL)


def test_no_frames(codec: Codec) -> None:
    stream = codec.stream()
    assert stream.push(draw_codes(0)).shape == (0,)
    assert stream.push(draw_codes(8)).size == 8 * SMALL.hop_length
    assert stream.push(draw_codes(0)).shape == (0,)
    assert stream.finish().shape == (0,)
    assert codec.stream().finish().shape == (0,)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros(4, np.int32),
        np.zeros((5, 3), np.int32),
        np.zeros((0, 3), np.int32),
        np.zeros((4, 3), np.float32),
        np.full((4, 3), 64, np.int32),
        np.full((4, 3), -1, np.int32),
        np.zeros((2, 3), np.int32),
    ],
)
def test_refused_codes_cost_nothing(codec: Codec, codes: np.ndarray) -> None:
    good = draw_codes(20)
    stream = codec.stream()
    parts = [stream.push(good[:, :10])]
    with pytest.raises(InputError, match="codes"):
        stream.push(codes)
    parts += [stream.push(good[:, 10:]), stream.finish()]
    np.testing.assert_allclose(np.concatenate(parts), codec.decode(good), rtol=0, atol=ATOL)


def test_a_finished_stream_takes_no_more(codec: Codec) -> None:
    stream = codec.stream()
    stream.push(draw_codes(3))
    assert stream.finish().size == 3 * SMALL.hop_length
    with pytest.raises(InputError, match="finished"):
        stream.push(draw_codes(3))
    with pytest.raises(InputError, match="finished"):
        stream.finish()


@pytest.mark.parametrize("engine", ["torch", "cuda"])
def test_a_push_that_fails_leaves_the_stream_as_it_was(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = TorchCodec(make_model()) if engine == "torch" else cuda_codec(SMALL)
    codes, stream = draw_codes(30), codec.stream()
    parts = [stream.push(codes[:, :10])]
    model = codec.model if isinstance(codec, TorchCodec) else codec.plain()
    last = model.decoder.layers[-1].conv

    def refuse(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(last, "forward", refuse)
        with pytest.raises(torch.OutOfMemoryError):
            stream.push(codes[:, 10:20])
    parts += [stream.push(codes[:, 10:20]), stream.push(codes[:, 20:]), stream.finish()]
    np.testing.assert_allclose(np.concatenate(parts), codec.decode(codes), rtol=0, atol=ATOL)


def test_half_precision_is_55_db_below_the_sound() -> None:
    codes = draw_codes(90)
    expected = torch_codec().decode(codes)
    codec = CudaCodec(make_model(), device=DEVICE, dtype=torch.float16)
    samples = stream_all(codec, codes, 30)
    assert np.square(samples - expected).mean() < 10**-5.0 * np.square(expected).mean()


@pytest.mark.parametrize("frames", [3, 40])
def test_overflow_in_half_precision_goes_on_in_float32(frames: int, caplog: pytest.LogCaptureFixture) -> None:
    """The clip is decoded again from its start, since the state of the layers is not finite."""
    model, codes = make_model(), draw_codes(frames)
    model.decoder.layers[0].conv.weight *= 1e5
    model.decoder.layers[-1].conv.weight *= 1e-5
    expected = TorchCodec(model.to(DEVICE)).decode(codes)
    codec = CudaCodec(model, device=DEVICE, dtype=torch.float16)
    for _ in range(2):
        samples = stream_all(codec, codes, 8)
        assert samples.shape == expected.shape and np.isfinite(samples).all()
        assert np.abs(samples - expected).max() <= 2e-3 * np.abs(expected).max()
    assert codec.dtype == torch.float32
    assert len([r for r in caplog.records if "goes on in float32" in r.message]) == 1


def test_overflow_in_the_middle_of_a_clip() -> None:
    """Samples that were returned already stay as they are; later ones are those of float32."""
    model, codes = make_model(), draw_codes(40)
    # One entry of the first codebook is far too large for half precision; only the second half uses it.
    codes[0] = np.where(np.arange(40) < 20, codes[0] % 63, 63)
    model.quantizer.layers[0].codebook.embed[63] *= 1e6
    expected = TorchCodec(model.to(DEVICE)).decode(codes)
    codec = CudaCodec(model, device=DEVICE, dtype=torch.float16)
    stream = codec.stream()
    first = stream.push(codes[:, :16])
    assert codec.dtype == torch.float16
    rest = np.concatenate([stream.push(piece) for piece in pieces(codes[:, 16:], 8)] + [stream.finish()])
    assert codec.dtype == torch.float32
    assert first.size == 16 * SMALL.hop_length
    assert np.abs(rest - expected[first.size :]).max() <= 1e-5 * np.abs(expected).max()


def test_a_stream_goes_on_after_its_codec_was_away() -> None:
    """As with SUNO_OFFLOAD_CPU: the codec moves to the CPU and back between two pushes."""
    for codec in (TorchCodec(make_model().to(DEVICE)), CudaCodec(make_model(), device=DEVICE, dtype=torch.float32)):
        codes, stream = draw_codes(30), codec.stream()
        parts = [stream.push(codes[:, :12])]
        codec.to("cpu")
        codec.to(DEVICE.type)
        parts += [stream.push(codes[:, 12:]), stream.finish()]
        np.testing.assert_allclose(np.concatenate(parts), codec.decode(codes), rtol=0, atol=1e-5)
