"""The device and the versions, in a process of their own: even asking a device can hang."""

from typing import Any

from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder
from benchmarks.results import SMOKE_DEVICE
from benchmarks.usable import find_lack


def run(plan: Plan, record: Recorder) -> None:
    """One row; none, but a failure named "usable", where this interpreter cannot run the rest."""
    lack = find_lack(plan.smoke)
    if lack is not None:
        record.measure("usable", lambda: refuse(lack))
        return
    smoke = {"device": {"name": SMOKE_DEVICE}} if plan.smoke else {}
    record.measure("environment", lambda: describe(plan) | smoke)


def refuse(lack: str) -> dict[str, Any]:
    raise NotRun(lack)


def describe(plan: Plan) -> dict[str, Any]:
    # Only here: where torch is missing, that is to be said rather than raised.
    from barkfast.bench.machine import describe_machine

    return describe_machine(plan.device_name)
