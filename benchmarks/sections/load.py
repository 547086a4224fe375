"""From nothing to ready to speak: without packed weights on disk, and with those of an earlier start."""

import json
import subprocess
import sys
from functools import partial
from typing import Any

from barkfast.bench.measure import in_row
from barkfast.bench.workload import vocabulary
from barkfast.cache import cache_bytes, cache_folder
from benchmarks.networks import source
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# Size -> dtypes. What is packed here the later sections find, so that they all start warm.
CASES = {"small": ("int8", "bfloat16", "float32", "int4"), "large": ("int8",)}
WARM_STARTS = {"small": 3, "large": 1}
# One start: seconds until barkfast is imported, then until all networks are there, then for the first token.
START = """
import time
marks = [time.perf_counter()]
import json, sys
from barkfast.bark import Bark
from barkfast.config import Sampling
marks.append(time.perf_counter())
bark = Bark(sys.argv[1], device="cpu", engine="cpu", dtype=sys.argv[2], tokenizer=sys.argv[3])
bark.load()
marks.append(time.perf_counter())
bark.generate_semantic("a word", None, Sampling(0.7), max_duration_s=0.02, allow_early_stop=False, seed=0)
marks.append(time.perf_counter())
names = ("import_s", "load_s", "first_token_s")
print(json.dumps({name: round(b - a, 4) for name, a, b in zip(names, marks, marks[1:])}))
"""


def run(plan: Plan, record: Recorder) -> None:
    """Cold first, which packs; then warm. The checkpoint itself is in the system's page cache in both."""
    for size, dtypes in [("small", ("int8",))] if plan.smoke else CASES.items():
        for dtype in dtypes:
            for kind, starts in (("cold", 1), ("warm", 1 if plan.smoke else WARM_STARTS[size])):
                name = f"{plan.size(size)} {dtype}, {kind} start, {plan.threads} threads"
                work = partial(time_starts, plan, plan.size(size), dtype, kind, starts)
                record.measure(name, work, dtype=dtype)


def time_starts(plan: Plan, size: str, dtype: str, kind: str, starts: int) -> dict[str, Any]:
    """Seconds of each part, each start a process of its own."""
    before = packed_bytes()
    found = [start(plan, size, dtype) for _ in range(starts)]
    grown = packed_bytes() - before
    if (kind == "cold") != (grown > 0):
        raise RuntimeError(f"{kind} starts have added {grown} bytes to the packed weights on disk")
    row: dict[str, Any] = {"size": size, "dtype": dtype, "kind": kind, "threads": plan.threads, "packed_bytes": grown}
    for name in found[0]:
        row |= in_row(name, [one[name] for one in found], 3)
    return row


def packed_bytes() -> int:
    folder = cache_folder()
    return 0 if folder is None else cache_bytes(folder)


def start(plan: Plan, size: str, dtype: str) -> dict[str, float]:
    arguments = [source(plan, size), dtype, str(vocabulary(plan.work))]
    result = subprocess.run([sys.executable, "-c", START, *arguments], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"the start failed with status {result.returncode}: {result.stderr.strip()[-300:]}")
    return json.loads(result.stdout.splitlines()[-1])
