"""The reference and transformers on the same processor, weights, voice and length, in the same run."""

from typing import Any

from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.peers import time_peer
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# No target is set for it: a shorter clip will do, and is said to be one.
LENGTHS = {"bark": None, "transformers": 5.0}


def run(plan: Plan, record: Recorder, part: str) -> None:
    """In float32, as both run on a CPU by default; one clip each, for it takes minutes."""
    networks.use_threads(plan)
    size = model_size(plan, part)
    for name, most_s in LENGTHS.items():

        def work(name: str = name, most_s: float | None = most_s) -> dict[str, Any]:
            clip_s = plan.clip_s if most_s is None else min(plan.clip_s, most_s)
            row = time_peer(plan, name, size, voice=True, warm=False, clip_s=clip_s)
            return {"size": size, "voice": True, "threads": plan.threads, "peer": name} | row

        record.measure(f"{name} {size}, full voice", work)
