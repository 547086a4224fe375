"""Converted random models, one folder per size: the same weights for every section, and for the peers."""

import json
from pathlib import Path
from typing import Any

from barkfast.bench.workload import vocabulary
from barkfast.weights.convert import convert
from benchmarks.plan import Plan
from benchmarks.record import Recorder


def run(plan: Plan, record: Recorder) -> None:
    """First the size that most depends on."""
    plan.models.mkdir(parents=True, exist_ok=True)
    sizes = ("small", "large") if plan.threads else ("large", "small")
    for size in ("nano",) if plan.smoke else sizes:
        record.measure(f"weights {size}", lambda size=size: write(plan, size))


def write(plan: Plan, size: str) -> dict[str, Any]:
    """One model in bfloat16, which every engine reads, its codec in float32."""
    folder = convert(f"random:{size}", plan.models / size, "bfloat16", voices=False)
    if plan.interpreted:
        shorten_windows(folder / "generation_config.json")
    vocabulary(folder)
    return {"size": size, "bytes": (folder / "model.safetensors").stat().st_size}


def shorten_windows(path: Path) -> None:
    """Give the model short fine windows: the interpreter would take many seconds for each."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["fine_acoustics_config"] |= {"max_fine_input_length": 48, "max_fine_history_length": 16}
    path.write_text(json.dumps(config), encoding="utf-8")
