"""The peers on the same device in the same run."""

import importlib.util

from benchmarks.peers import time_peer
from benchmarks.plan import Plan
from benchmarks.record import Recorder

MOST = 3
# What `bark` needs to be loaded and to speak once.
BARK_S = 35


def run(plan: Plan, record: Recorder) -> None:
    """Large, BarkModel in half precision."""
    most = 1 if plan.smoke else MOST
    leave = BARK_S if importlib.util.find_spec("bark") else 0
    record.measure("transformers", lambda: time_peer(plan, "transformers", plan.largest, most=most, leave=leave))
    record.measure("bark", lambda: time_peer(plan, "bark", plan.largest, most=most))
