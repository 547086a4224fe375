"""The processor and the versions."""

from typing import Any

from barkfast.bench.machine import describe_machine
from benchmarks.plan import Plan
from benchmarks.record import Recorder

SMOKE_DEVICE = "cpu (smoke)"


def run(plan: Plan, record: Recorder) -> None:
    """One row."""
    record.measure("environment", lambda: describe(plan))


def describe(plan: Plan) -> dict[str, Any]:
    """The machine; a smoke test's results are not filed under its name."""
    machine = describe_machine("cpu")
    if plan.smoke:
        machine["device"]["name"] = SMOKE_DEVICE
    return machine
