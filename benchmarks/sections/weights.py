"""Converted random models, one folder per size: the same weights for every section, and for the peers."""

import json
from pathlib import Path
from typing import Any

from barkfast.weights.convert import convert
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.sources import vocabulary


def run(plan: Plan, record: Recorder) -> None:
    """Large first: most depends on it."""
    plan.models.mkdir(parents=True, exist_ok=True)
    for size in ("nano",) if plan.smoke else ("large", "small"):
        record.measure(f"weights {size}", lambda size=size: write(plan, size))


def write(plan: Plan, size: str) -> dict[str, Any]:
    """One model in bfloat16, its codec in float32."""
    folder = convert(f"random:{size}", plan.models / size, "bfloat16", voices=False)
    if plan.smoke:
        shorten_windows(folder / "generation_config.json")
    vocabulary(folder)
    return {"size": size, "bytes": (folder / "model.safetensors").stat().st_size}


def shorten_windows(path: Path) -> None:
    """Give the model short fine windows: the interpreter would take many seconds for each."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["fine_acoustics_config"] |= {"max_fine_input_length": 48, "max_fine_history_length": 16}
    path.write_text(json.dumps(config), encoding="utf-8")
