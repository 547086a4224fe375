"""The processor and the versions."""

from benchmarks.cpu.environment import describe_cpu
from benchmarks.environment import describe
from benchmarks.plan import Plan
from benchmarks.record import Recorder


def run(plan: Plan, record: Recorder) -> None:
    """One row."""
    record.measure("environment", lambda: describe(describe_cpu(smoke=plan.smoke)))
