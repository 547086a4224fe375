"""The fine network and the codec on the GPU engine, against the torch engine."""

import dataclasses

import numpy as np
import pytest
import torch

from barkfast.config import CodecConfig, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.jobs import FineJob
from barkfast.models.encodec import EncodecDecoder
from barkfast.runtime.cuda.codec import FRAMES_BUCKET, CudaCodec
from barkfast.runtime.sampling import Randomness
from barkfast.runtime.torch_ import TorchCodec
from barkfast.weights.random import make_codec
from contract.networks import FINE
from cuda_engine.networks import DEVICE, cuda_refiner, torch_refiner


def make_job(first_frame: int = 0, frames: int = 32, sampling: Sampling = Sampling(0.0), seed: int = 1) -> FineJob:
    window = np.random.default_rng(5).integers(0, 38, (frames, FINE.n_codes_total)).astype(np.int32)
    window[first_frame:, 2:] = 38
    return FineJob(window, first_frame, 2, 38, sampling, Randomness(seed))


@pytest.mark.parametrize("first_frame", [0, 5, 31])
@pytest.mark.parametrize("frames", [32, 9])
def test_greedy_codes_are_those_of_the_torch_engine(first_frame: int, frames: int) -> None:
    job = make_job(min(first_frame, frames - 1), frames)
    filled = cuda_refiner().refine(job)
    np.testing.assert_array_equal(filled, torch_refiner().refine(job))
    assert filled.dtype == np.int32
    np.testing.assert_array_equal(filled[: job.first_frame], job.window[: job.first_frame])
    np.testing.assert_array_equal(filled[:, :2], job.window[:, :2])


def test_codes_are_drawn_by_seed() -> None:
    refiner = cuda_refiner()
    first = refiner.refine(make_job(sampling=Sampling(1.0)))
    np.testing.assert_array_equal(first, refiner.refine(make_job(sampling=Sampling(1.0))))
    assert (first != refiner.refine(make_job(sampling=Sampling(1.0), seed=2))).any()
    random = Randomness(1)
    again = [refiner.refine(dataclasses.replace(make_job(sampling=Sampling(1.0)), random=random)) for _ in range(2)]
    assert (again[0] != again[1]).any(), "the second window repeats the first one's random numbers"
    assert first[:, 2:].min() >= 0 and first[:, 2:].max() < 38


def test_a_window_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="33 frames"):
        cuda_refiner().refine(make_job(frames=33))


def test_infinite_logits_are_an_error_and_the_next_window_is_fine() -> None:
    refiner = cuda_refiner()
    expected = refiner.refine(make_job())
    weight = refiner._network.tables[3, 7].clone()
    refiner._network.tables[3, 7] = float("inf")
    with pytest.raises(EngineError, match="fine network's logits are not finite"):
        refiner.refine(make_job())
    refiner._network.tables[3, 7] = weight
    np.testing.assert_array_equal(refiner.refine(make_job()), expected)


CODEC = CodecConfig(n_codebooks=4, codebook_size=64, dimension=32, n_filters=4)


def codec_model() -> EncodecDecoder:
    model = EncodecDecoder(CODEC).requires_grad_(False).eval()
    model.load_state_dict(make_codec(CODEC, torch.Generator().manual_seed(6)))
    return model


def codes_of(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 64, (4, frames)).astype(np.int32)


@pytest.mark.parametrize("frames", [1, 2, 7, 63, 64, 65, 130])
def test_samples_are_those_of_the_torch_engine(frames: int) -> None:
    expected = TorchCodec(codec_model().to(DEVICE)).decode(codes_of(frames))
    samples = CudaCodec(codec_model(), device=DEVICE, dtype=torch.float32).decode(codes_of(frames))
    assert samples.shape == expected.shape and samples.dtype == np.float32
    assert np.abs(samples - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def test_half_precision_is_55_db_below_the_sound() -> None:
    expected = TorchCodec(codec_model().to(DEVICE)).decode(codes_of(150))
    samples = CudaCodec(codec_model(), device=DEVICE, dtype=torch.float16).decode(codes_of(150))
    noise = np.square(samples - expected).mean() / np.square(expected).mean()
    assert noise < 10**-5.0


def test_lengths_share_buffers_by_buckets() -> None:
    codec = CudaCodec(codec_model(), device=DEVICE, dtype=torch.float32)
    for frames in (FRAMES_BUCKET, FRAMES_BUCKET + 1, 2 * FRAMES_BUCKET):
        codec.decode(codes_of(frames))
    assert len(codec._buffers) == 2


def test_a_decoder_that_looks_ahead_is_never_padded() -> None:
    config = dataclasses.replace(CODEC, trim_right_ratio=0.5)
    model = EncodecDecoder(config).requires_grad_(False).eval()
    model.load_state_dict(make_codec(config, torch.Generator().manual_seed(6)))
    expected = TorchCodec(model.to(DEVICE)).decode(codes_of(70))
    codec = CudaCodec(model, device=DEVICE, dtype=torch.float32)
    assert np.abs(codec.decode(codes_of(70)) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_overflow_in_half_precision_goes_on_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    model = codec_model()
    model.decoder.layers[0].conv.weight *= 1e5
    model.decoder.layers[-1].conv.weight *= 1e-5
    expected = TorchCodec(model.to(DEVICE)).decode(codes_of(70))
    codec = CudaCodec(model, device=DEVICE, dtype=torch.float16)
    for _ in range(2):
        samples = codec.decode(codes_of(70))
    assert np.isfinite(samples).all()
    assert np.abs(samples - expected).max() <= 2e-3 * np.abs(expected).max()
    assert len([r for r in caplog.records if "goes on in float32" in r.message]) == 1
