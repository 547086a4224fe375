"""Coarse windows without a voice continue each other's caches, and give the same where one is lost."""

import numpy as np
import pytest

from barkfast.config import Layout, Sampling
from barkfast.jobs import Job
from barkfast.runtime.decoder import Decoder
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows
from cpu_engine.networks import DTYPES, cpu_decoder, make_job, needs_native, torch_decoder

pytestmark = needs_native

LAYOUT = Layout.from_generation_config(
    {
        "semantic_config": {"semantic_vocab_size": 20, "eos_token_id": 20, "semantic_rate_hz": 49.9},
        "coarse_acoustics_config": {
            "coarse_semantic_pad_token": 110,
            "coarse_infer_token": 111,
            "max_coarse_input_length": 24,
            "max_coarse_history": 60,
            "sliding_window_len": 6,
        },
        "codebook_size": 40,
    }
)


def make_windows(sampling: Sampling, seed: int = 3) -> CoarseWindows:
    semantic = np.random.default_rng(seed).integers(0, 20, 6)
    return CoarseWindows(semantic, LAYOUT, sampling, random=Randomness(seed))


def run_chain(
    decoder: Decoder, sampling: Sampling, seed: int = 3, between: Job | None = None
) -> tuple[np.ndarray, int]:
    """Codes, and how many of the windows extend the one before."""
    windows, extended = make_windows(sampling, seed), 0
    while (job := windows.next_job()) is not None:
        extended += job.extends is not None
        if between is not None:
            decoder.run([between])
        windows.append(decoder.run([job])[0])
    return windows.codes(), extended


def test_greedy_windows_equal_the_torch_engines() -> None:
    codes, extended = run_chain(cpu_decoder(), Sampling(0.0))
    assert extended >= 2
    np.testing.assert_array_equal(codes, run_chain(torch_decoder(), Sampling(0.0))[0])


def test_an_extension_reads_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = cpu_decoder()
    reads = []
    read = decoder._read_prompt
    monkeypatch.setattr(decoder, "_read_prompt", lambda *args: (reads.append(args), read(*args))[1])
    _, extended = run_chain(decoder, Sampling(0.0))
    assert len(reads) == make_windows(Sampling(0.0)).n_windows - extended


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cache_that_was_lost_is_made_again_the_same(dtype: str) -> None:
    kept, extended = run_chain(cpu_decoder(dtype), Sampling(0.9))
    assert extended >= 2
    # The only slot goes to another job between the windows.
    lost, _ = run_chain(cpu_decoder(dtype), Sampling(0.9), between=make_job(1, steps=3))
    np.testing.assert_array_equal(lost, kept)


def test_a_lost_cache_steps_like_a_kept_one() -> None:
    """A step draws a token for every slot, however many have to be read first."""
    windows = make_windows(Sampling(0.9))
    decoder = cpu_decoder(n_slots=2)
    while (job := windows.next_job()) is not None and job.extends is None:
        windows.append(decoder.run([job])[0])
    assert job is not None
    fresh = cpu_decoder(n_slots=2)
    other, slot = fresh.admit(make_job(1, steps=job.steps)), fresh.admit(job)
    tokens: dict[int, list[int]] = {other: [], slot: []}
    for _ in range(job.steps):
        for step in fresh.step():
            assert step.token is not None
            tokens[step.slot].append(step.token)
    expected = torch_decoder().run([make_job(1, steps=job.steps)])[0]
    np.testing.assert_array_equal(tokens[other], expected)
    assert len(tokens[slot]) == job.steps


def test_a_job_that_ended_early_is_not_extended() -> None:
    decoder = cpu_decoder()
    first = make_job(1, steps=6)
    slot = decoder.admit(first)
    decoder.step()
    decoder.release(slot)
    assert not decoder._kept
    decoder.run([first])
    assert list(decoder._kept.values()) == [first]


def test_chains_side_by_side_equal_chains_alone() -> None:
    alone = [run_chain(cpu_decoder(n_slots=2), Sampling(0.9), seed)[0] for seed in (3, 4)]
    decoder = cpu_decoder(n_slots=2)
    chains = [make_windows(Sampling(0.9), seed) for seed in (3, 4)]
    while any(jobs := [windows.next_job() for windows in chains]):
        for windows, tokens in zip(chains, decoder.run(jobs), strict=True):
            windows.append(tokens)
    for windows, codes in zip(chains, alone, strict=True):
        np.testing.assert_array_equal(windows.codes(), codes)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tokens_read_one_by_one_are_a_prompt(threads: int) -> None:
    """Many steps of one call draw nothing."""
    job = make_job(1, length=100, steps=20)
    (expected,) = torch_decoder().run([job])
    decoder = cpu_decoder(threads=threads)
    for _ in range(5):
        decoder._native.prefill(0, job.prompt[:1])
        decoder._native.seat(0, job.prompt[1:], job.steps, job.slices)
        assert decoder._native.advance([0], 1000, 60.0) == 99 + 19
        np.testing.assert_array_equal(decoder._native.tokens(0), expected)
