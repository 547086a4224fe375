"""Is it right? Every dtype of the engine that is measured, by the check that `barkfast bench` makes before it times."""

from typing import Any

from barkfast.bench.check import check
from barkfast.bench.workload import Workload
from benchmarks import networks
from benchmarks.budget import CPU_DTYPES
from benchmarks.plan import Plan
from benchmarks.record import Recorder

CUDA_DTYPES = ("float32", "bfloat16", "int8", "float16")


def run(plan: Plan, record: Recorder, part: str = "") -> None:
    """A row per dtype and size, each with `ok`; of one size if the part names it."""
    sizes = (part,) if part else ("nano", "small") if plan.threads and not plan.smoke else ("nano",)
    for dtype in CPU_DTYPES if plan.threads else ("float32",) if plan.smoke else CUDA_DTYPES:
        for size in sizes:
            record.measure(f"{size} {dtype}", lambda size=size, dtype=dtype: compare(plan, size, dtype))


def compare(plan: Plan, size: str, dtype: str) -> dict[str, Any]:
    """Tokens, logits, codes and samples against the torch engine in float32; `rms_ratio` is the worst of the logits."""
    workload = Workload(networks.source(plan, size), plan.device_name, dtype, plan.engine)
    checks = check(workload)
    ratios = [one.value for one in checks if one.name.endswith("logits") and one.value is not None]
    return {
        "size": size,
        "dtype": dtype,
        "ok": bool(checks) and all(one.ok for one in checks),
        "rms_ratio": max(ratios, default=None),
        "values": {one.name: one.value for one in checks},
        "reason": "; ".join(f"{one.name}: {one.note}" for one in checks if not one.ok),
    }
