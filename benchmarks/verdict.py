"""What a call on a GPU decided and what it did not reach, in ten lines at the most."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.budget import GPU_BUDGETS, NOT_ASKED_FOR
from benchmarks.targets import rows_of

Results = Mapping[str, Any]
# What the other variants are compared with: what ran when the first results were made.
BASE = "T0 as on the H100"
# Microseconds of a step by which one change alone shows that it was the reason.
MOVED_US = 100.0
# Of a chain's kernel: its weights were under way that long before it was let go, or hardly so.
AHEAD_NS, HARDLY_NS = 1000.0, 300.0
# Of an exchange between all blocks: at most this, and one kernel for a whole step pays; at least that, and it does not.
PAYS_US, PAYS_NOT_US = 0.6, 0.9


def describe(results: Results) -> list[str]:
    """A line per question that the call answers, then what failed and what was not reached."""
    steps = {step.section for step in GPU_BUDGETS[results["call"]].steps}
    lines = []
    for section, say in QUESTIONS:
        if section in steps:
            try:
                lines.append(say(results))
            except Exception as error:
                # A verdict that fails must not take the results with it.
                lines.append(f"{section}: the verdict failed: {type(error).__name__}: {error}")
    return lines


# --- the variants


@dataclass(frozen=True)
class Pick:
    """The fastest variant of a dtype.

    Args:
        ratio: mean over networks and contexts of its time over the base's.
        us, base_us: medians by network and context.
    """

    label: str
    ratio: float
    us: dict[str, float]
    base_us: dict[str, float]


def choose(rows: Sequence[Mapping[str, Any]], dtype: str, base: str) -> Pick | None:
    """The variant with the lowest mean of us / base_us, among those timed wherever the base was; None without a base.

    Args:
        rows: of timings, with `label`, `dtype`, `stage`, `context` and `us_median`; others are passed over.
    """
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get("dtype") == dtype and "us_median" in row:
            times.setdefault(row["label"], {})[f"{row['stage']} {round(row['context'])}"] = row["us_median"]
    base_us = times.get(base)
    if not base_us:
        return None
    picks = [
        Pick(label, summarize_ratio(us, base_us), us, base_us)
        for label, us in times.items()
        if us.keys() == base_us.keys()
    ]
    # Equal ones: the base, else the first.
    return min(picks, key=lambda pick: (pick.ratio, pick.label != base))


def summarize_ratio(us: Mapping[str, float], base_us: Mapping[str, float]) -> float:
    return sum(us[name] / base_us[name] for name in base_us) / len(base_us)


def timed_rows(results: Results, dtype: str) -> list[dict[str, Any]]:
    """Steps of the variants in a dtype."""
    rows = rows_of(results, "ab", dtype=dtype)
    return [row for row in rows if "us_median" in row and row.get("ok", True)]


def say_best(dtype: str) -> Callable[[Results], str]:
    def say(results: Results) -> str:
        rows = timed_rows(results, dtype)
        pick = choose(rows, dtype, BASE)
        if pick is None:
            return f"best variant, {dtype}: not decided: {why(results, 'ab')}"
        wrong = sorted({row["label"].split()[0] for row in rows_of(results, "ab", ok=False)})
        note = f"; wrong: {', '.join(wrong)}" if wrong else ""
        return (
            f"best variant, {dtype}: {pick.label.split()[0]}, {max(pick.us.values()):.0f} us at its slowest against "
            f"{max(pick.base_us.values()):.0f} of {BASE.split()[0]}, {1 / pick.ratio:.2f} times as fast on average, of "
            f"{len({row['label'] for row in rows})} timed{note}"
        )

    return say


def moved(results: Results, label: str) -> float | None:
    """Microseconds that one change alone takes off the base's slowest bfloat16 step."""
    rows = timed_rows(results, "bfloat16")
    slowest = [max((r["us_median"] for r in rows if r["label"].split()[0] == of), default=None) for of in ("T0", label)]
    return None if None in slowest else slowest[0] - slowest[1]


# --- the probe


def chains(results: Results, **wanted: Any) -> list[Mapping[str, Any]]:
    rows = [row for row in rows_of(results, "probe") if row.get("test") == "chain"]
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def say_ahead(results: Results) -> str:
    """Whether weights travel ahead, and if not what holds them back."""
    leads = [(f"trigger {t}", row) for t in (3, 2, 1) for row in chains(results, name="48K", trigger=t, pdl=1, how=1)]
    t1, t2 = moved(results, "T1"), moved(results, "T2")
    parts = [f"{name}{', carve-out' if row['carve'] == 100 else ''} {row['lead_ns']:.0f} ns" for name, row in leads]
    changes = [f"{label} took off {us:.0f} us" for label, us in (("T1", t1), ("T2", t2)) if us is not None]
    facts = "; ".join([", ".join(parts) or f"probe: {why(results, 'probe')}", *changes])
    return f"weights ahead: {reason_for_lead(leads, t1, t2)} ({facts})"


def reason_for_lead(leads: list[tuple[str, Mapping[str, Any]]], t1: float | None, t2: float | None) -> str:
    """S1: the trigger stood behind the loads; S2: another shared memory split; S3: kernels start late anyway."""
    found = [name for name, us in (("S1, the trigger's place", t1), ("S2, the carve-out", t2)) if us and us > MOVED_US]
    if found:
        return f"{' and '.join(found)} held them back; dependent launches stay the road"
    first = [row["lead_ns"] for name, row in leads if name == "trigger 1"]
    if not first:
        return "not decided"
    if max(first) >= AHEAD_NS:
        return "yes in the probe" + ("" if t1 is None or t2 is None else ", though neither change alone moved a step")
    if max(first) <= HARDLY_NS:
        return "no, S3: kernels start late; take weights to L2, or one kernel for a step"
    return "in part"


def say_exchange(results: Results) -> str:
    """Whether one kernel for a whole step would pay."""
    rows = [row for row in rows_of(results, "probe") if row.get("test") == "exchange"]
    found = next((r for r in rows if r["loaded"] == 1 and r["floats"] == 1024), None)
    if found is None:
        return f"one kernel for a step: not decided: {why(results, 'probe')}"
    us = found["us"]
    if found.get("stuck") or found.get("sum_right") is False:
        return f"one kernel for a step: not decided: the exchange gave wrong sums or hung, at {us:.2f} us"
    answer = "pays" if us <= PAYS_US else "does not pay" if us >= PAYS_NOT_US else "is between the bounds"
    return f"one kernel for a step {answer}: an exchange while weights stream takes {us:.2f} us (0.6 pays, 0.9 not)"


# --- what both calls answer


def say_gate(results: Results) -> str:
    gate = results["gate"]
    state = f"open for {', '.join(gate['dtypes'])}" if gate["open"] else f"RED: {gate['reason']}"
    closed = sorted({" ".join(filter(None, reversed(pair))) for pair in gate.get("wrong", [])})
    return f"gate: {state}" + (f"; not found right: {', '.join(closed)}" if closed else "")


def say_tests(results: Results) -> str:
    tests = results["tests"]
    first = f", first {tests['failures'][0]['test']}" if tests["failures"] else ""
    left = [name for name, how in tests["files"].items() if how not in ("ended",)]
    unfinished = f"; not to their end: {', '.join(left)[:200]}" if left else ""
    return f"tests: {tests['passed']} passed, {len(tests['failures'])} failed{first}{unfinished}"


def say_sanitizer(results: Results) -> str:
    found = results["sanitizer"]
    return f"compute-sanitizer: {found['status']} {found['reason']}".rstrip()


def say_peers(results: Results) -> str:
    rows = [r for r in rows_of(results, "peers") if "real_time_factor_median" in r]
    if not rows:
        return f"peers: not measured: {why(results, 'peers')}"
    return "peers, real-time factor: " + ", ".join(f"{r['row']} {r['real_time_factor_median']:.3g}" for r in rows)


def say_clips(results: Results) -> str:
    rows = [r for r in rows_of(results, "clips") if "real_time_factor_median" in r]
    if not rows:
        return f"10 s clips: not measured: {why(results, 'clips')}"
    clips = ", ".join(f"{r['row']} {r['real_time_factor_median']:.3g} ({r.get('variant')})" for r in rows)
    return f"10 s clips, real-time factor: {clips}"


def say_targets(results: Results) -> str:
    if results["smoke"]:
        return "targets: none, for the times of a smoke test mean nothing"
    by = {verdict: [t for t in results["targets"] if t["verdict"] == verdict] for verdict in ("met", "missed")}
    missed = "; ".join(f"{t['name']} {t['value']:.4g}{t['unit']} for {t['target']:.4g}" for t in by["missed"])
    return f"targets: {len(by['met'])} met, {len(by['missed'])} missed{f': {missed}' if missed else ''}"


def say_left(results: Results) -> str:
    """Steps and targets that this call was to reach and did not."""
    steps = [s for s in results["steps"] if s["status"] in ("not run", "timeout") and s["reason"] != NOT_ASKED_FOR]
    names = [f"{s['name']} ({s['reason'][:80]})" for s in steps]
    names += [t["name"] for t in results["targets"] if t["verdict"] == "not run" and not results["smoke"]]
    return f"not reached: {'; '.join(names) if names else 'nothing'}"


def say_failures(results: Results) -> str:
    failed = results["failed"]
    return f"failed: {len(failed)}{f', first: {failed[0][:200]}' if failed else ''}"


def why(results: Results, section: str) -> str:
    """Why a section has no rows."""
    content = results["sections"].get(section)
    if content is None:
        return "not run"
    first = content["failures"][0] if content["failures"] else None
    return f"{first['row']}: {first['reason']}"[:150] if first else content.get("reason") or "no rows"


# Section -> what it answers; those of sections that are not the call's are left out.
QUESTIONS: tuple[tuple[str, Callable[[Results], str]], ...] = (
    ("ab", say_best("bfloat16")),
    ("ab", say_best("int8")),
    ("probe", say_ahead),
    ("probe", say_exchange),
    ("gate", say_gate),
    ("tests", say_tests),
    ("sanitizer", say_sanitizer),
    ("peers", say_peers),
    ("clips", say_clips),
    ("environment", say_targets),
    ("environment", say_left),
    ("environment", say_failures),
)
