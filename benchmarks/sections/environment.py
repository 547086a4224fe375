"""The device and the versions, in a process of their own: even asking a device can hang."""

from benchmarks.environment import describe
from benchmarks.plan import Plan
from benchmarks.record import Recorder


def run(plan: Plan, record: Recorder) -> None:
    """One row."""
    record.measure("environment", lambda: describe(plan.smoke))
