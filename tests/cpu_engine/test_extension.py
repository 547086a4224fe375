"""How the CPU decoder reads prompt tokens that a slot's cache lacks."""

import numpy as np
import pytest

from barkfast.config import Sampling
from contract.decoding import make_windows
from contract.networks import make_job, torch_decoder
from cpu_engine.networks import CONFIG, cpu_decoder, needs_native

pytestmark = needs_native


def test_a_lost_cache_steps_like_a_kept_one() -> None:
    """A step draws one token for every slot, however many tokens must be read first."""
    windows = make_windows(Sampling(0.9))
    decoder = cpu_decoder(n_slots=2)
    while (job := windows.next_job()) is not None and job.continues_from is None:
        windows.append(decoder.run([job])[0])
    assert job is not None
    anew = cpu_decoder(n_slots=2)
    other, slot = anew.admit(make_job(1, steps=job.steps)), anew.admit(job)
    tokens: dict[int, list[int]] = {other: [], slot: []}
    for _ in range(job.steps):
        for step in anew.step():
            assert step.token is not None
            tokens[step.slot].append(step.token)
    expected = torch_decoder(CONFIG).run([make_job(1, steps=job.steps)])[0]
    np.testing.assert_array_equal(tokens[other], expected)
    assert len(tokens[slot]) == job.steps


def test_a_job_that_ended_early_is_not_extended() -> None:
    decoder = cpu_decoder()
    first = make_job(1, steps=6)
    slot = decoder.admit(first)
    decoder.step()
    decoder.release(slot)
    assert not decoder._retained
    decoder.run([first])
    assert list(decoder._retained.values()) == [first]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tokens_read_one_by_one_are_a_prompt(threads: int) -> None:
    """Most steps of this one native call read a prompt token and draw nothing."""
    job = make_job(1, length=100, steps=20)
    (expected,) = torch_decoder(CONFIG).run([job])
    decoder = cpu_decoder(threads=threads)
    for _ in range(5):
        decoder._native.prefill(0, job.prompt[:1])
        decoder._native.start(0, job.prompt[1:], job.steps, job.slices)
        assert decoder._native.advance([0], 1000, 60.0) == 99 + 19
        np.testing.assert_array_equal(decoder._native.tokens(0), expected)
