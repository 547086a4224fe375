"""The targets on a GPU, and whether a run met its targets. What was not measured has no verdict but "not run"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]
# What the limits of steps are set for, and how fast it was measured to read on 2026-11-24.
H100, H100_READ_GB_PER_S, H100_DATASHEET_GB_PER_S = "H100", 3124.0, 3350.0
# The rows of decode whose kernels a user gets: those that this run found best, or the default ones.
DEFAULT_WAYS = ("best", "graphs")


@dataclass(frozen=True)
class Target:
    """A limit on one number.

    Args:
        name: what it is of.
        limit: the number to be met.
        at_least: whether more is better.
        unit: of both.
        find: results -> (the number, or None; why there is none).
        section: that measures it.
        by_bandwidth: whether the limit is an H100's, and another device's follows from its own reading rate.
    """

    name: str
    limit: float
    unit: str
    find: Callable[[Results], tuple[float | None, str]]
    at_least: bool = False
    section: str = ""
    by_bandwidth: bool = False

    def limit_on(self, results: Results) -> float:
        """The limit on the device of these results."""
        return self.limit * bandwidth_scale(results) if self.by_bandwidth else self.limit


def bandwidth_scale(results: Results) -> float:
    """Time that reading takes on the results' device, over that on the H100 that the limits are set for.

    By what both measured, else by their datasheets, else 1.
    """
    ceilings = results.get("ceilings", {})
    if H100 in results.get("device", "") or not ceilings:
        return 1.0
    if ceilings["read_gb_per_s"]:
        return H100_READ_GB_PER_S / ceilings["read_gb_per_s"]
    return H100_DATASHEET_GB_PER_S / (ceilings["datasheet_gb_per_s"] or H100_DATASHEET_GB_PER_S)


# The row of the section `peers` that is ours.
OURS = "barkfast bfloat16"


def rows_of(results: Results, section: str) -> list[dict[str, Any]]:
    return results["sections"].get(section, {}).get("rows", [])


def why_not(results: Results, section: str, piece: str = "") -> str:
    """Why a section lacks a row whose name holds `piece`."""
    content = results["sections"].get(section)
    if content is None:
        return f"the section {section} was not run"
    failure = next((f for f in content["failures"] if piece in f["row"]), None)
    if failure is not None:
        return f"{failure['row']}: {failure['reason']}"
    return content.get("reason") or f"the section {section} did not get there"


def worst(results: Results, section: str, key: str, count: int, **wanted: Any) -> tuple[float | None, str]:
    """The largest `key` of the rows that have one and these values; None unless there are `count` of them."""
    rows = [row for row in rows_of(results, section) if key in row and all(row.get(k) == v for k, v in wanted.items())]
    if len(rows) < count:
        piece = " ".join(str(wanted[k]) for k in ("size", "dtype") if k in wanted)
        return None, why_not(results, section, piece)
    return max(row[key] for row in rows), ""


def step(dtype: str) -> Callable[[Results], tuple[float | None, str]]:
    """The slowest step of batch 1, both networks, short and long context, by the way that is default on the device."""

    def find(results: Results) -> tuple[float | None, str]:
        value: tuple[float | None, str] = (None, "")
        for way in DEFAULT_WAYS:
            value = worst(results, "decode", "us_median", 4, size="large", dtype=dtype, way=way)
            if value[0] is not None:
                return value
        return value

    return find


def real_time(dtype: str) -> Callable[[Results], tuple[float | None, str]]:
    """Of a clip with a voice."""
    key = "real_time_factor_median"
    return lambda r: worst(r, "end_to_end", key, 1, size="large", dtype=dtype, voice=True)


def speed_up(peer: str) -> Callable[[Results], tuple[float | None, str]]:
    """How many times as fast as a peer, in the same run."""

    def find(results: Results) -> tuple[float | None, str]:
        factors = {row["row"]: row["real_time_factor_median"] for row in rows_of(results, "peers")}
        for name in (OURS, peer):
            if name not in factors:
                return None, why_not(results, "peers", name)
        return factors[peer] / factors[OURS], ""

    return find


def batch_64(results: Results) -> tuple[float | None, str]:
    row = next((row for row in rows_of(results, "batch") if row["row"].endswith("clips, batch 64")), None)
    return (row["times_real_time"], "") if row else (None, why_not(results, "batch", "clips, batch 64"))


def memory(results: Results) -> tuple[float | None, str]:
    """What torch has reserved at most while speaking, every stage resident."""
    row = next((row for row in rows_of(results, "end_to_end") if row["row"] == "large bfloat16, memory"), None)
    return (row["peak_reserved_bytes"] / 1e9, "") if row else (None, why_not(results, "end_to_end", "memory"))


def logits(dtype: str) -> Callable[[Results], tuple[float | None, str]]:
    return lambda r: worst(r, "gate", "rms_ratio", 1, row=f"logits {dtype}")


def failed_checks(results: Results) -> tuple[float | None, str]:
    """Checks against the torch engine that went wrong, of the kernels' variants too."""
    names = [name for name in results["sections"] if name.partition(" ")[0] in ("gate", "variants")]
    rows = [row for name in names for row in rows_of(results, name) if not row["row"].startswith("logits")]
    failures = [f for name in names for f in results["sections"][name].get("failures", [])]
    failures = [f for f in failures if f["status"] == "failed" and "logits" not in f["row"]]
    if not rows and not failures:
        return None, why_not(results, "gate")
    wrong = [row["row"] for row in rows if not row["ok"]] + [failure["row"] for failure in failures]
    return float(len(wrong)), ", ".join(wrong)


def failed_tests(results: Results) -> tuple[float | None, str]:
    tests = results["tests"]
    left = [name for name, how in tests["files"].items() if how != "ended"]
    if not tests["failures"] and (left or not tests["passed"]):
        return None, f"not run to their end: {', '.join(left)}" if left else tests.get("reason") or "no test ran"
    return float(len(tests["failures"])), tests["failures"][0]["test"] if tests["failures"] else ""


def sanitizer_errors(results: Results) -> tuple[float | None, str]:
    found = results["sanitizer"]
    return (None if found["errors"] is None else float(found["errors"])), found["reason"]


def waits(results: Results) -> tuple[float | None, str]:
    name = "no synchronisation in the loop"
    row = next((row for row in rows_of(results, "profile") if row["row"] == name), None)
    if row is None:
        return None, why_not(results, "profile", name)
    return float(sum(row["waits_per_token"].values())), ", ".join(row["waits_per_token"])


def _step(dtype: str, limit: float, kind: str = "") -> Target:
    name = f"large {dtype} step, batch 1, slowest{kind}"
    return Target(name, limit, "us", step(dtype), section="decode", by_bandwidth=True)


def _clip(dtype: str, limit: float, kind: str = "") -> Target:
    name = f"large {dtype} real-time factor, 10 s, with a voice{kind}"
    return Target(name, limit, "", real_time(dtype), section="end_to_end")


def _peer(name: str, limit: float) -> Target:
    return Target(f"large bfloat16, times the speed of {name}", limit, "x", speed_up(name), True, "peers")


TARGETS = (
    _step("bfloat16", 245),
    _step("int8", 200),
    _step("int8", 150, ", goal"),
    _clip("bfloat16", 0.06),
    _clip("int8", 0.06),
    _clip("int8", 0.04, ", goal"),
    _peer("bark", 15),
    _peer("transformers", 10),
    _peer("compiled", 2.5),
    Target("large bfloat16, batch 64, times real time", 150, "x", batch_64, True, "batch"),
    Target("large bfloat16, memory reserved at most, all stages resident", 3.0, "GB", memory, section="end_to_end"),
    Target("float32 against the torch engine, checks that failed", 0, "", failed_checks, section="gate"),
    Target("bfloat16 logits, rms ratio to float32", 0.01, "", logits("bfloat16"), section="gate"),
    Target("float16 logits, rms ratio to float32", 0.01, "", logits("float16"), section="gate"),
    Target("GPU tests that failed", 0, "", failed_tests, section="tests"),
    Target("errors found by compute-sanitizer", 0, "", sanitizer_errors, section="sanitizer"),
    Target("waits for the device per token", 0, "", waits, section="profile"),
)


def judge(results: Results, targets: Sequence[Target] = TARGETS) -> list[dict[str, Any]]:
    """A line per target: met, missed or not run."""
    lines = []
    for target in targets:
        try:
            value, reason = target.find(results)
            limit = target.limit_on(results)
        except Exception as error:
            # What was measured is worth more than the verdict on it.
            value, reason, limit = None, f"the verdict failed: {type(error).__name__}: {error}", target.limit
        if value is None:
            verdict = "not run"
        else:
            verdict = "met" if (value >= limit if target.at_least else value <= limit) else "missed"
        lines.append(
            {
                "name": target.name,
                "value": value,
                "target": limit,
                "at_least": target.at_least,
                "unit": target.unit,
                "verdict": verdict,
                "reason": reason,
            }
        )
    return lines
