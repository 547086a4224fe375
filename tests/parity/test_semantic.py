"""Semantic tokens: identical to the reference's, and drawn from the same random numbers."""

import logging
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from golden.cases import SAMPLING, TEXT

from .reference import VOICES, Pair

ENDINGS: dict[str, dict] = {
    "end of speech": {},
    "duration": {"max_gen_duration_s": 0.6},
    "no early stop": {"allow_early_stop": False, "max_gen_duration_s": 1.2},
}


def compare(pair: Pair, text: str = TEXT, **options) -> np.ndarray:
    options = {"silent": True, "use_kv_caching": True, **options}
    return pair.compare_tokens("generate_text_semantic", text, **options)


@pytest.mark.sweep(48)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("voice", VOICES)
def test_voices_sampling_and_endings(pair: Pair, voice: str | None, sampling: str, ending: str) -> None:
    seed = zlib.crc32(f"{voice}{sampling}{ending}".encode())
    compare(pair, history_prompt=voice, seed=seed, **SAMPLING[sampling], **ENDINGS[ending])


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("voice", "sampling"), [(None, "default"), ("announcer", "both"), ("en_speaker_6", "top_p"), (None, "top_k")]
)
def test_full_length_without_early_stop(pair: Pair, voice: str | None, sampling: str) -> None:
    tokens = compare(pair, history_prompt=voice, seed=1, allow_early_stop=False, **SAMPLING[sampling])
    assert len(tokens) == 768


@pytest.mark.sweep(14)
@pytest.mark.parametrize("allow_early_stop", [True, False])
@pytest.mark.parametrize("voice", [None, "v2/en_speaker_6"])
@pytest.mark.parametrize("seconds", [0, 0.3, 0.5, 1.0, 2.0, 1 / 49.9, 16])
def test_duration_limit(pair: Pair, voice: str | None, seconds: float, allow_early_stop: bool) -> None:
    options = {"history_prompt": voice, "max_gen_duration_s": seconds, "allow_early_stop": allow_early_stop}
    compare(pair, seed=2, min_eos_p=0.9, **options)


@pytest.mark.sweep(8)
@pytest.mark.parametrize("min_eos_p", [None, 0.0, 0.01, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("voice", [None, "tr_speaker_4"])
def test_end_of_speech_threshold(pair: Pair, voice: str | None, min_eos_p: float | None) -> None:
    compare(pair, history_prompt=voice, seed=3, min_eos_p=min_eos_p)


@pytest.mark.parametrize(
    "sampling", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1.0}, {"top_k": 20_000}, {"temp": 0.1}, {"temp": 3.0}], ids=str
)
def test_extreme_sampling(pair: Pair, sampling: dict) -> None:
    compare(pair, seed=4, max_gen_duration_s=1.0, **sampling)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_both_values_of_use_kv_caching(pair: Pair, sampling: str) -> None:
    options = {"max_gen_duration_s": 0.6, "seed": 5, "history_prompt": "announcer", **SAMPLING[sampling]}
    without = compare(pair, use_kv_caching=False, **options)
    np.testing.assert_array_equal(without, compare(pair, use_kv_caching=True, **options))


@pytest.mark.parametrize("seed", range(5))
def test_seeds(pair: Pair, seed: int) -> None:
    compare(pair, "Hello world", seed=seed)


def test_text_beyond_its_slots(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        compare(pair, "world " * 300, seed=6, max_gen_duration_s=0.5)
    messages = [record.getMessage() for record in caplog.records if "too long" in record.getMessage()]
    assert messages == ["warning, text too long, lopping of last 14.7%"] * 2


@pytest.mark.parametrize("n_history", [1, 2, 255, 256, 257, 700])
def test_history_lengths(pair: Pair, n_history: int) -> None:
    tokens = np.random.default_rng(n_history).integers(0, 10_000, n_history)
    empty = np.zeros((8, 0), np.int32)
    voice = {"semantic_prompt": tokens, "coarse_prompt": empty[:2], "fine_prompt": empty}
    compare(pair, history_prompt=voice, seed=7, max_gen_duration_s=0.5)


def test_every_way_to_end_occurs(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparisons above mean something only if speech ends in each way the reference knows."""
    draws: list[tuple[int, float]] = []
    multinomial = torch.multinomial

    def watched(probs: torch.Tensor, num_samples: int, **options: Any) -> torch.Tensor:
        drawn = multinomial(probs, num_samples, **options)
        draws.append((drawn.item(), probs[-1].item()))
        return drawn

    ways = set()
    for seed in range(16):
        seconds = 1 if seed % 2 else 6
        options = {"history_prompt": VOICES[seed // 2], "max_gen_duration_s": seconds}
        draws.clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "multinomial", watched)
            compare(pair, seed=seed, **options)
        # The first half of the draws is the reference's.
        token, p_end = draws[len(draws) // 2 - 1]
        if token == 10_000:
            ways.add("drawn")
        elif p_end >= 0.2:
            ways.add("probable")
        else:
            ways.add("too long")
    assert ways == {"drawn", "probable", "too long"}
