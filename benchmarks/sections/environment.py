"""The device and the versions, in a process of their own: even asking a device can hang."""

from benchmarks.environment import describe, try_device
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.results import SMOKE_DEVICE


def run(plan: Plan, record: Recorder) -> None:
    """One row."""
    record.measure("environment", lambda: describe({"name": SMOKE_DEVICE} if plan.smoke else try_device()))
