"""The peers on the same device in the same run."""

import importlib.util

import torch

from benchmarks.peers import time_reference, time_transformers
from benchmarks.plan import Plan
from benchmarks.record import Recorder

MOST = 3
# What `bark` needs to be loaded and to speak once.
BARK_S = 35


def run(plan: Plan, record: Recorder) -> None:
    """Large, BarkModel in bfloat16."""
    most = 1 if plan.smoke else MOST
    dtype = torch.float32 if plan.smoke else torch.bfloat16
    leave = BARK_S if importlib.util.find_spec("bark") else 0
    record.measure("transformers", lambda: time_transformers(plan, plan.largest, dtype, most=most, leave=leave))
    record.measure("bark", lambda: time_reference(plan, plan.largest, most=most))
