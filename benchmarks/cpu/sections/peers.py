"""The reference and transformers on the same processor, weights, voice and length, in the same run."""

from typing import Any

from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.peers import time_peer
from benchmarks.plan import Plan
from benchmarks.record import Recorder

PEERS = ("bark", "transformers")


def run(plan: Plan, record: Recorder, part: str) -> None:
    """One clip each, for it takes minutes."""
    networks.use_threads(plan)
    size = model_size(plan, part)
    for name in PEERS:

        def work(name: str = name) -> dict[str, Any]:
            row = time_peer(plan, name, size, voice=True, warm=False)
            return {"size": size, "voice": True, "threads": plan.threads, "peer": name} | row

        record.measure(f"{name} {size}, full voice", work)
