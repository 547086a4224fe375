"""Decode steps: a job of so many tokens after a prompt of any length, and the time of each of its steps."""

import time
from collections.abc import Sequence

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.errors import EngineError
from barkfast.jobs import Job, Stop
from barkfast.runtime.decoder import Decoder
from barkfast.runtime.sampling import Randomness


def step_job(stage: str, layout: Layout, prompt: int, steps: int, seed: int, *, may_stop: bool = True) -> Job:
    """A job of `steps` tokens after `prompt` random ones, drawn from what its stage draws from, as it draws.

    Args:
        stage: semantic or coarse.
        may_stop: offer the semantic stage's end token, as speech does; random weights hardly ever draw it.
    """
    ids = np.random.default_rng(seed).integers(0, layout.semantic.vocab_size, prompt).astype(np.int32)
    slices: tuple[tuple[int, int], ...]
    stop = None
    if stage == "semantic":
        slices = ((0, layout.semantic.vocab_size),)
        if may_stop:
            stop = Stop(layout.semantic.pad_token, layout.semantic.min_eos_p)
    else:
        first, size = layout.semantic.vocab_size, layout.codebook_size
        slices = tuple((first + k * size, first + (k + 1) * size) for k in range(layout.coarse.n_codebooks))
    return Job(ids, steps, slices, Sampling(0.7), stop, random=Randomness(seed))


def candidates(job: Job) -> int:
    """Head rows that one step of a job reads: those of one slice, and the stop token's."""
    return job.slices[0][1] - job.slices[0][0] + (job.stop is not None)


def step_times(decoder: Decoder, jobs: Sequence[Job], *, skip: int = 2) -> list[float]:
    """Milliseconds of each step of jobs that run together, but for the first `skip` and the prompts before them.

    Steps end with the first job that ends: with fewer jobs they would be faster.
    Errors: that of a step that failed; EngineError if no step was left to be timed.
    """
    slots = [decoder.admit(job) for job in jobs]
    times: list[float] = []
    try:
        for _ in range(min(job.steps for job in jobs)):
            start = time.perf_counter()
            steps = decoder.step()
            times.append((time.perf_counter() - start) * 1e3)
            for step in steps:
                if step.error is not None:
                    raise step.error
            if any(step.done and step.token is None for step in steps):
                break
    finally:
        for slot in slots:
            decoder.release(slot)
    if len(times) <= skip:
        raise EngineError(f"a job ended after {len(times)} steps, of which the first {skip} are not timed")
    return times[skip:]
