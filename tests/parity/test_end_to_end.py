"""Text to sound through the public functions of both packages, under the same `torch.manual_seed`."""

from pathlib import Path

import numpy as np
import pytest
import torch

import barkfast

from .reference import Pair, assert_identical, import_reference

KEYS = ["semantic_prompt", "coarse_prompt", "fine_prompt"]


def run_both(pair: Pair, function: str, *args, seed: int, **options) -> list:
    """Call a public function of `bark` and of `barkfast` under the same seed."""
    bark, _ = import_reference()
    results = []
    for package in (bark, barkfast):
        torch.manual_seed(seed)
        results.append(getattr(package, function)(*args, silent=True, **options))
        results.append(torch.get_rng_state())
    expected, state, actual, our_state = results
    assert torch.equal(our_state, state)
    return [expected, actual]


def compare_full(pair: Pair, text: str, seed: int, **options) -> dict[str, np.ndarray]:
    (tokens, audio), (our_tokens, our_audio) = run_both(
        pair, "generate_audio", text, seed=seed, output_full=True, **options
    )
    assert list(our_tokens) == list(tokens) == KEYS
    for key in KEYS:
        assert_identical(our_tokens[key], tokens[key])
    assert our_audio.dtype == audio.dtype and our_audio.shape == audio.shape == (320 * tokens["fine_prompt"].shape[1],)
    np.testing.assert_allclose(our_audio, audio, rtol=0, atol=1e-5)
    return tokens


@pytest.mark.sweep(4)
@pytest.mark.parametrize("voice", [None, "announcer", "de_speaker_7", "tr_speaker_4", "v2/zh_speaker_6"])
def test_generate_audio(pair: Pair, voice: str | None) -> None:
    compare_full(pair, "Hello world, this is the [laughs] speech.", seed=20, history_prompt=voice)


def test_other_temperatures(pair: Pair) -> None:
    compare_full(pair, "Hello!", seed=15, text_temp=0.5, waveform_temp=1.1)


def test_a_generation_is_a_voice(pair: Pair, tmp_path: Path) -> None:
    """A clip that one package generates and saves is a voice for the other, as a dict and as a file."""
    tokens = compare_full(pair, "The first.", seed=34)
    compare_full(pair, "The second.", seed=13, history_prompt=tokens)
    bark, _ = import_reference()
    bark.save_as_prompt(str(tmp_path / "theirs.npz"), tokens)
    barkfast.save_as_prompt(str(tmp_path / "ours.npz"), tokens)
    with np.load(tmp_path / "theirs.npz") as theirs, np.load(tmp_path / "ours.npz") as ours:
        assert theirs.files == ours.files == KEYS
        assert all(np.array_equal(theirs[key], ours[key]) and theirs[key].dtype == ours[key].dtype for key in KEYS)
    compare_full(pair, "The third.", seed=19, history_prompt=str(tmp_path / "ours.npz"))


def test_in_two_halves(pair: Pair) -> None:
    expected, actual = run_both(pair, "text_to_semantic", "Hello world", seed=16, history_prompt="announcer", temp=0.8)
    assert_identical(actual, expected)
    both = run_both(
        pair,
        "semantic_to_waveform",
        expected,
        seed=17,
        history_prompt="announcer",
        temp=0.6,
        output_full=True,
        max_gen_duration_s=1.0,
    )
    (tokens, audio), (our_tokens, our_audio) = both
    for key in KEYS:
        assert_identical(our_tokens[key], tokens[key])
    np.testing.assert_allclose(our_audio, audio, rtol=0, atol=1e-5)


def test_a_seed_is_torch_manual_seed(pair: Pair) -> None:
    """`seed=` gives the tokens that the reference gives after torch.manual_seed, and leaves torch's generator alone."""
    bark, _ = import_reference()
    torch.manual_seed(32)
    expected, _ = bark.generate_audio("Hello", silent=True, output_full=True)
    state = torch.get_rng_state()
    actual, _ = barkfast.generate_audio("Hello", silent=True, output_full=True, seed=32)
    assert torch.equal(torch.get_rng_state(), state)
    for key in KEYS:
        assert_identical(actual[key], expected[key])
