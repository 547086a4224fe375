"""barkfast and the peers on the same device in the same run."""

import importlib.util
from typing import Any

from barkfast.bench.backends import OURS
from benchmarks.peers import time_peer
from benchmarks.plan import Plan
from benchmarks.record import Recorder

MOST = 3
# What `bark` needs to be loaded and to speak once.
BARK_S = 35
# Ours, then each by its worth as a measure; `bark`, the slowest, is last.
ROWS = {
    "barkfast bfloat16": "bfloat16",
    "barkfast int8": "int8",
    "compiled": "auto",
    "transformers": "auto",
    "bark": "auto",
}


def run(plan: Plan, record: Recorder) -> None:
    """Large, one after the other; peers in half precision where they have it."""
    most = 1 if plan.smoke else MOST
    leave = BARK_S if importlib.util.find_spec("bark") else 0
    for row, dtype in ROWS.items():
        name, ours = row.split()[0], row.startswith(OURS)
        # Peers are timed whatever the gate says; ours are not while it is red.
        if ours and not plan.smoke and not plan.dtypes:
            continue

        def work(name: str = name, dtype: str = dtype) -> dict[str, Any]:
            left = 0 if name == "bark" else leave
            return time_peer(plan, name, plan.largest, most=most, leave=left, dtype=dtype)

        record.measure(row, work, dtype=dtype if ours and not plan.smoke else None)
