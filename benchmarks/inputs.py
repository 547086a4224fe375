"""What every engine is given: random weights of each size, jobs, and a voice that fills every history."""

from functools import lru_cache

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.jobs import Job, Stop
from barkfast.runtime.sampling import Randomness
from barkfast.weights import Checkpoint, open_model
from benchmarks.plan import Plan
from benchmarks.sources import source

PARTS = {"semantic": "text", "coarse": "coarse"}


@lru_cache(maxsize=2)
def checkpoint(plan: Plan, size: str) -> Checkpoint:
    """The weights of a size."""
    return open_model(source(plan, size))


def step_job(stage: str, layout: Layout, prompt: int, steps: int, seed: int) -> Job:
    """A job of `steps` tokens after `prompt` random ones, drawn from what its stage draws from, as it draws."""
    ids = np.random.default_rng(seed).integers(0, layout.semantic.vocab_size, prompt).astype(np.int32)
    if stage == "semantic":
        slices = ((0, layout.semantic.vocab_size),)
        stop = Stop(layout.semantic.pad_token, layout.semantic.min_eos_p)
    else:
        first, size = layout.semantic.vocab_size, layout.codebook_size
        slices = tuple((first + k * size, first + (k + 1) * size) for k in range(layout.coarse.n_codebooks))
        stop = None
    return Job(ids, steps, slices, Sampling(0.7), stop, random=Randomness(seed))


def candidates(job: Job) -> int:
    """Head rows that one step of a job reads: those of one slice, and the stop token's."""
    return job.slices[0][1] - job.slices[0][0] + (job.stop is not None)


def full_voice(layout: Layout, seed: int = 1) -> dict[str, np.ndarray]:
    """A synthetic voice that fills every stage's history."""
    rng = np.random.default_rng(seed)
    n_semantic = 2 * layout.semantic.n_slots
    frames = round(n_semantic * layout.coarse_per_semantic / layout.coarse.n_codebooks)
    fine = rng.integers(0, layout.codebook_size, (layout.fine.n_codebooks, frames))
    return {
        "semantic_prompt": rng.integers(0, layout.semantic.vocab_size, n_semantic),
        "coarse_prompt": fine[: layout.coarse.n_codebooks],
        "fine_prompt": fine,
    }
