"""Converted random models, one folder per size: the same weights for every section, and for the peers."""

from typing import Any

from barkfast.weights.convert import convert
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.sources import vocabulary


def run(plan: Plan, record: Recorder) -> None:
    """In bfloat16, which every engine reads."""
    plan.models.mkdir(parents=True, exist_ok=True)
    for size in ("nano",) if plan.smoke else ("small", "large"):
        record.measure(f"weights {size}", lambda size=size: write(plan, size))


def write(plan: Plan, size: str) -> dict[str, Any]:
    """One model, its codec in float32."""
    folder = convert(f"random:{size}", plan.models / size, "bfloat16", voices=False)
    vocabulary(folder)
    return {"size": size, "bytes": (folder / "model.safetensors").stat().st_size}
