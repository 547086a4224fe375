"""The device and the versions, in a process of their own: even asking a device can hang."""

from barkfast.bench.environment import describe_machine
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.results import SMOKE_DEVICE


def run(plan: Plan, record: Recorder) -> None:
    """One row."""
    smoke = {"device": {"name": SMOKE_DEVICE}} if plan.smoke else {}
    record.measure("environment", lambda: describe_machine(plan.device_name) | smoke)
