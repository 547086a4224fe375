"""Where the weights under test come from, and a vocabulary for them."""

from barkfast.bench.workload import vocabulary
from barkfast.weights.convert import MARKER
from benchmarks.plan import Plan

__all__ = ["source", "vocabulary"]


def source(plan: Plan, size: str) -> str:
    """What to open for a size: the converted folder, or where there is none, the recipe itself."""
    folder = plan.models / size
    return str(folder) if (folder / MARKER).exists() else f"random:{size}"
