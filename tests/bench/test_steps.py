"""Timing of single decode steps: the jobs that are made for it, and the times."""

import time

import numpy as np
import pytest

from barkfast.bench.measure import candidates, step_job, step_times
from barkfast.config import Layout
from barkfast.errors import EngineError
from barkfast.jobs import Job
from barkfast.runtime.decoder import Decoder, Step

LAYOUT = Layout()


def test_a_job_draws_from_what_its_stage_draws_from():
    semantic = step_job("semantic", LAYOUT, 300, 7, seed=1)
    assert (len(semantic.prompt), semantic.steps, semantic.prompt.dtype) == (300, 7, np.int32)
    assert candidates(semantic) == LAYOUT.semantic.vocab_size + 1
    endless = step_job("semantic", LAYOUT, 300, 7, seed=1, may_stop=False)
    assert endless.stop is None and candidates(endless) == LAYOUT.semantic.vocab_size
    coarse = step_job("coarse", LAYOUT, 5, 7, seed=1)
    assert coarse.slices == ((10_000, 11_024), (11_024, 12_048)) and candidates(coarse) == 1024
    np.testing.assert_array_equal(semantic.prompt[:5], coarse.prompt)


class Sleeper(Decoder):
    """A decoder whose steps take 5 ms; the last one draws the stop token, or fails."""

    def __init__(self, n_steps: int, error: EngineError | None = None) -> None:
        self.n_steps, self.error, self.drawn = n_steps, error, 0
        self.released: list[int] = []

    def admit(self, job: Job) -> int:
        return 0

    def step(self) -> list[Step]:
        time.sleep(0.005)
        self.drawn += 1
        done = self.drawn == self.n_steps
        return [Step(0, None if done else 1, done, self.error if done else None)]

    def release(self, slot: int) -> None:
        self.released.append(slot)

    def logits(self, slot: int) -> np.ndarray:
        raise NotImplementedError

    def to(self, device: str) -> None:
        raise NotImplementedError


def test_steps_are_timed_one_by_one():
    times = step_times(Sleeper(99), [step_job("coarse", LAYOUT, 5, 6, seed=1)])
    assert len(times) == 4 and min(times) >= 5


def test_a_job_that_ends_early_ends_the_timing():
    decoder = Sleeper(5)
    assert len(step_times(decoder, [step_job("semantic", LAYOUT, 5, 20, seed=1)])) == 3
    with pytest.raises(EngineError, match="ended after 2 steps"):
        step_times(Sleeper(2), [step_job("semantic", LAYOUT, 5, 20, seed=1)])
    assert decoder.released == [0]


def test_a_step_that_fails_is_not_timed():
    decoder = Sleeper(4, EngineError("not finite"))
    with pytest.raises(EngineError, match="not finite"):
        step_times(decoder, [step_job("coarse", LAYOUT, 5, 20, seed=1)])
    assert decoder.released == [0]
