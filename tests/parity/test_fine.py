"""All eight codebooks: identical to the reference's over voices, lengths and temperatures."""

import numpy as np
import pytest

from .reference import VOICES, Pair

TEMPERATURES = [0.5, None]


def coarse_codes(n_frames: int, n_codebooks: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (n_codebooks, n_frames)).astype(np.int32)


def compare(pair: Pair, codes: np.ndarray, **options) -> np.ndarray:
    before = codes.copy()
    result = pair.compare_tokens("generate_fine", codes, **options)
    np.testing.assert_array_equal(codes, before)
    return result


@pytest.mark.sweep(10)
@pytest.mark.parametrize("temp", TEMPERATURES)
@pytest.mark.parametrize("voice", VOICES)
def test_voices_and_temperatures(pair: Pair, voice: str | None, temp: float | None) -> None:
    compare(pair, coarse_codes(300), history_prompt=voice, temp=temp, seed=1)


@pytest.mark.sweep(8)
@pytest.mark.parametrize("temp", TEMPERATURES)
@pytest.mark.parametrize("voice", VOICES)
def test_beyond_one_window(pair: Pair, voice: str | None, temp: float | None) -> None:
    compare(pair, coarse_codes(1154), history_prompt=voice, temp=temp, seed=2)


@pytest.mark.sweep(11)
@pytest.mark.parametrize("n_frames", [1, 2, 511, 512, 513, 788, 1023, 1024, 1025, 1536, 1537])
def test_lengths_without_a_voice(pair: Pair, n_frames: int) -> None:
    compare(pair, coarse_codes(n_frames), seed=3)


@pytest.mark.sweep(8)
@pytest.mark.parametrize("n_frames", [1, 512, 513, 787, 788, 1600])
@pytest.mark.parametrize("voice", ["en_speaker_6", "de_speaker_7"])
def test_lengths_with_a_voice(pair: Pair, voice: str, n_frames: int) -> None:
    compare(pair, coarse_codes(n_frames), history_prompt=voice, seed=4)


@pytest.mark.parametrize("n_codebooks", [1, 3, 7])
def test_other_numbers_of_given_codebooks(pair: Pair, n_codebooks: int) -> None:
    compare(pair, coarse_codes(1100, n_codebooks), history_prompt="announcer", seed=5)


@pytest.mark.parametrize("n_history", [1, 2, 511, 512, 513])
def test_history_lengths(pair: Pair, n_history: int) -> None:
    codes = coarse_codes(n_history, 8, seed=n_history)
    voice = {"semantic_prompt": np.arange(9), "coarse_prompt": codes[:2], "fine_prompt": codes}
    compare(pair, coarse_codes(600), history_prompt=voice, seed=6)


@pytest.mark.parametrize("temp", [0.1, 0.7, 1.0, 3.0])
def test_more_temperatures(pair: Pair, temp: float) -> None:
    compare(pair, coarse_codes(40), temp=temp, seed=8)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_dtypes(pair: Pair, dtype: type) -> None:
    compare(pair, coarse_codes(64).astype(dtype), seed=7)
