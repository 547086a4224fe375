"""What every engine is given: random weights of each size, jobs, and a voice that fills every history."""

from functools import lru_cache

from barkfast.bench.measure import candidates, step_job
from barkfast.bench.workload import full_voice
from barkfast.weights import Checkpoint, open_model
from benchmarks.plan import Plan
from benchmarks.sources import source

__all__ = ["COMPONENTS", "candidates", "checkpoint", "full_voice", "step_job"]

COMPONENTS = {"semantic": "text", "coarse": "coarse"}


@lru_cache(maxsize=2)
def checkpoint(plan: Plan, size: str) -> Checkpoint:
    """The weights of a size."""
    return open_model(source(plan, size))
