"""How fast the device reads memory and multiplies matrices: the ceilings that shares refer to."""

from typing import Any

from barkfast.bench.measure import measure_products, measure_reading
from benchmarks.plan import Plan
from benchmarks.record import Recorder

SECONDS = 3.0
KEYS = {"GB/s": "gb_per_s", "TFLOP/s": "tflop_per_s"}


def run(plan: Plan, record: Recorder, part: str = "") -> None:
    """Several ways; the best is the ceiling. Of a CPU only reading, which is what decoding waits for."""
    seconds = 0.05 if plan.smoke else SECONDS
    ways = measure_reading(plan.device_name, seconds=seconds)
    if not plan.threads:
        ways += measure_products(plan.device_name, "bfloat16", seconds=seconds)
    for way in ways:
        record.measure(f"{way['name']}{plan.of_threads()}", lambda way=way: describe(plan, way))


def describe(plan: Plan, way: dict[str, Any]) -> dict[str, Any]:
    return {"threads": plan.threads, KEYS[way["unit"]]: way["value"]}
