"""Coarse codes: identical to the reference's over voices, windows and sampling."""

import zlib

import numpy as np
import pytest

from golden.cases import SAMPLING, WINDOWS

from .reference import VOICES, Pair


def semantic_tokens(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 10_000, n)


def compare(pair: Pair, semantic: np.ndarray, window: tuple[int, int] = (60, 630), **options) -> np.ndarray:
    options = {"silent": True, "use_kv_caching": True, **options}
    return pair.compare_tokens(
        "generate_coarse", semantic, sliding_window_len=window[0], max_coarse_history=window[1], **options
    )


@pytest.mark.sweep(48)
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("voice", VOICES)
def test_voices_windows_and_sampling(pair: Pair, voice: str | None, window: tuple[int, int], sampling: str) -> None:
    seed = zlib.crc32(f"{voice}{sampling}{window}".encode())
    codes = compare(pair, semantic_tokens(50, seed), window, history_prompt=voice, seed=seed, **SAMPLING[sampling])
    assert codes.shape == (2, 75)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("voice", [None, "announcer"])
def test_full_length(pair: Pair, voice: str | None) -> None:
    codes = compare(pair, semantic_tokens(768), history_prompt=voice, seed=1)
    assert codes.shape == (2, 1154)


@pytest.mark.sweep(6)
@pytest.mark.parametrize("window", [(1, 60), (7, 100), (47, 333), (138, 630), (708, 60)], ids=str)
@pytest.mark.parametrize("voice", [None, "v2/tr_speaker_5"])
def test_more_windows(pair: Pair, voice: str | None, window: tuple[int, int]) -> None:
    compare(pair, semantic_tokens(150 if window[0] > 40 else 30), window, history_prompt=voice, seed=2)


@pytest.mark.sweep(10)
@pytest.mark.parametrize("n", [1, 2, 3, 19, 20, 21, 41, 220])
@pytest.mark.parametrize("voice", [None, "tr_speaker_4"])
def test_lengths(pair: Pair, voice: str | None, n: int) -> None:
    compare(pair, semantic_tokens(n), history_prompt=voice, seed=3)


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.0, 99])
def test_duration_limit(pair: Pair, seconds: float) -> None:
    compare(pair, semantic_tokens(90), history_prompt="en_speaker_6", seed=4, max_gen_duration_s=seconds)


@pytest.mark.parametrize(
    "sampling", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1.0}, {"top_k": 2000}, {"temp": 0.1}, {"temp": 3.0}], ids=str
)
def test_extreme_sampling(pair: Pair, sampling: dict) -> None:
    compare(pair, semantic_tokens(25), seed=5, **sampling)


@pytest.mark.parametrize("voice", [None, "v2/zh_speaker_6"])
def test_both_values_of_use_kv_caching(pair: Pair, voice: str | None) -> None:
    without = compare(pair, semantic_tokens(24), history_prompt=voice, seed=6, use_kv_caching=False)
    np.testing.assert_array_equal(without, compare(pair, semantic_tokens(24), history_prompt=voice, seed=6))


@pytest.mark.parametrize("n_history", [2, 4, 11, 101, 208, 209, 210, 211])
def test_history_lengths(pair: Pair, n_history: int) -> None:
    """Down to the shortest voice whose ratio of frames to semantic tokens the reference accepts."""
    random = np.random.default_rng(n_history)
    frames = int(n_history * 1.5)
    codes = random.integers(0, 1024, (8, frames))
    voice = {"semantic_prompt": random.integers(0, 10_000, n_history), "coarse_prompt": codes[:2], "fine_prompt": codes}
    compare(pair, semantic_tokens(24), history_prompt=voice, seed=7)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16])
def test_dtypes(pair: Pair, dtype: type) -> None:
    compare(pair, semantic_tokens(24).astype(dtype), history_prompt="en_speaker_6", seed=8)
