"""The targets on a GPU, and whether a run met its targets. What was not measured has no verdict but "not run"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A limit on one number.

    Args:
        name: what it is of.
        limit: the number to be met.
        at_least: whether more is better.
        unit: of both.
        find: results -> (the number, or None; why there is none).
    """

    name: str
    limit: float
    unit: str
    find: Callable[[Results], tuple[float | None, str]]
    at_least: bool = False


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
    """The slowest step of batch 1: both networks, short and long context."""
    return lambda r: worst(r, "decode", "us_median", 4, size="large", dtype=dtype, way="graphs")


def real_time(results: Results) -> tuple[float | None, str]:
    """With a voice or without, whichever is slower."""
    return worst(results, "end_to_end", "real_time_factor_median", 2, size="large", dtype="bfloat16")


def speed_up(peer: str) -> Callable[[Results], tuple[float | None, str]]:
    """How many times as fast as a peer, for a clip without a voice."""

    def find(results: Results) -> tuple[float | None, str]:
        wanted = {"size": "large", "dtype": "bfloat16", "voice": False}
        ours, reason = worst(results, "end_to_end", "real_time_factor_median", 1, **wanted)
        if ours is None:
            return None, reason
        row = next((row for row in rows_of(results, "peers") if row["row"] == peer), None)
        if row is None:
            return None, why_not(results, "peers", peer)
        return row["real_time_factor_median"] / ours, ""

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
    """Checks against the torch engine that went wrong."""
    rows = [row for row in rows_of(results, "gate") if not row["row"].startswith("logits")]
    content = results["sections"].get("gate", {})
    failures = [f for f in content.get("failures", []) if f["status"] == "failed" and "logits" not in f["row"]]
    if not rows and not failures:
        return None, why_not(results, "gate")
    wrong = [row["row"] for row in rows if not row["ok"]] + [failure["row"] for failure in failures]
    return float(len(wrong)), ", ".join(wrong)


def failed_tests(results: Results) -> tuple[float | None, str]:
    tests = results["tests"]
    if not tests["passed"] and not tests["failures"]:
        return None, tests.get("reason") or "no test ran"
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


TARGETS = (
    Target("large bfloat16 step, batch 1, slowest", 320, "us", step("bfloat16")),
    Target("large int8 step, batch 1, slowest", 220, "us", step("int8")),
    Target("large bfloat16 real-time factor, 10 s, slower of voice and none", 0.085, "", real_time),
    Target("large bfloat16, times the speed of bark", 15, "x", speed_up("bark"), at_least=True),
    Target("large bfloat16, times the speed of transformers", 10, "x", speed_up("transformers"), at_least=True),
    Target("large bfloat16, batch 64, times real time", 80, "x", batch_64, at_least=True),
    Target("large bfloat16, memory reserved at most, all stages resident", 3.0, "GB", memory),
    Target("float32 against the torch engine, checks that failed", 0, "", failed_checks),
    Target("bfloat16 logits, rms ratio to float32", 0.01, "", logits("bfloat16")),
    Target("float16 logits, rms ratio to float32", 0.01, "", logits("float16")),
    Target("GPU tests that failed", 0, "", failed_tests),
    Target("errors found by compute-sanitizer", 0, "", sanitizer_errors),
    Target("waits for the device per token", 0, "", waits),
)


def judge(results: Results, targets: Sequence[Target] = TARGETS) -> list[dict[str, Any]]:
    """A line per target: met, missed or not run."""
    lines = []
    for target in targets:
        value, reason = target.find(results)
        if value is None:
            verdict = "not run"
        else:
            verdict = "met" if (value >= target.limit if target.at_least else value <= target.limit) else "missed"
        lines.append(
            {
                "name": target.name,
                "value": value,
                "target": target.limit,
                "at_least": target.at_least,
                "unit": target.unit,
                "verdict": verdict,
                "reason": reason,
            }
        )
    return lines
