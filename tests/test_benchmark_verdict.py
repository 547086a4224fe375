"""What `make gpu` says at its end, by results that are made up."""

from typing import Any

import pytest

from benchmarks import verdict
from benchmarks.verdict import BASE

CONTEXTS = [("semantic", 300.5), ("semantic", 1000.5), ("coarse", 300.5), ("coarse", 917.5)]


def ab_rows(**microseconds: float) -> list[dict[str, Any]]:
    """Rows of variants by their label, in bfloat16."""
    return [
        {"row": "a variant", "label": BASE if label == "T0" else f"{label} such a variant", "dtype": "bfloat16"}
        | {"stage": stage, "context": context, "ok": True, "us_median": us + context / 100}
        for label, us in microseconds.items()
        for stage, context in CONTEXTS
    ]


def chain(trigger: int, lead_ns: float, carve: int = -1) -> dict[str, Any]:
    names = {"row": "a chain", "test": "chain", "name": "48K", "how": 1, "pdl": 1, "carve": carve}
    return names | {"trigger": trigger, "lead_ns": lead_ns}


def exchange(us: float, **changes: Any) -> dict[str, Any]:
    names = {"row": "an exchange", "test": "exchange", "loaded": 1, "floats": 1024}
    return names | {"us": us, "stuck": 0, "sum_right": True} | changes


def results_of(call: str = "gpu", **sections: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "call": call,
        "smoke": False,
        "sections": {
            name: {"rows": rows, "failures": [], "complete": True, "reason": ""} for name, rows in sections.items()
        },
        "gate": {"open": True, "dtypes": ["float32", "bfloat16"], "reason": "", "wrong": [["int8", "CUDA kernels"]]},
        "tests": {"passed": 3, "failed": 0, "skipped": 0, "failures": [], "skips": {}, "files": {"a": "ended"}},
        "sanitizer": {"status": "clean", "errors": 0, "reason": ""},
        "steps": [{"name": "probe", "status": "not run", "reason": "there is no nvcc"}],
        "targets": [
            {"name": "a step", "value": 300.0, "target": 245.0, "unit": "us", "verdict": "missed"},
            {"name": "a clip", "value": 0.05, "target": 0.06, "unit": "", "verdict": "met"},
            {"name": "memory", "value": None, "target": 3.0, "unit": "GB", "verdict": "not run"},
        ],
        "failed": ["ab: C5: wrong"],
    }


def line_about(lines: list[str], begin: str) -> str:
    (line,) = [line for line in lines if line.startswith(begin)]
    return line


def test_the_best_variant_is_named_with_the_base():
    rows = ab_rows(T0=530, T1=500, C4=240, C8=250)
    # One that was not timed everywhere, and one that was wrong, are not chosen.
    rows += ab_rows(C6=100)[:3] + [r | {"ok": False} for r in ab_rows(C5=90)]
    lines = verdict.describe(results_of(ab=rows))
    best = line_about(lines, "best variant, bfloat16")
    assert "C4, 250 us at its slowest against 540 of T0" in best and "wrong: C5" in best
    assert "not decided" in line_about(lines, "best variant, int8")


def test_without_the_base_nothing_is_best():
    assert "not decided" in line_about(verdict.describe(results_of(ab=ab_rows(T1=500))), "best variant, bfloat16")


@pytest.mark.parametrize(
    ("times", "leads", "expected"),
    [
        ({"T0": 530, "T1": 380, "T2": 520}, [chain(2, 100), chain(1, 2000)], "S1, the trigger's place held"),
        ({"T0": 530, "T1": 520, "T2": 400}, [chain(1, 2000)], "S2, the carve-out held"),
        ({"T0": 530, "T1": 520, "T2": 525}, [chain(1, 120)], "no, S3"),
        ({"T0": 530, "T1": 520, "T2": 525}, [chain(1, 120), chain(1, 1800, 100)], "yes in the probe, though neither"),
        ({"T0": 530, "T1": 520, "T2": 525}, [chain(1, 600)], "in part"),
        ({}, [chain(1, 1800)], "yes in the probe ("),
        ({"T0": 530, "T1": 520}, [], "not decided"),
    ],
)
def test_whether_weights_travel_ahead(times, leads, expected):
    lines = verdict.describe(results_of(ab=ab_rows(**times), probe=leads))
    assert f"weights ahead: {expected}" in line_about(lines, "weights ahead")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (exchange(0.6), "step pays"),
        (exchange(0.75), "step is between"),
        (exchange(0.9), "step does not pay"),
        (exchange(0.3, sum_right=False), "not decided"),
        (exchange(0.3, stuck=1), "not decided"),
        (exchange(0.3, loaded=0), "not decided"),
    ],
)
def test_whether_one_kernel_would_pay(row, expected):
    assert expected in line_about(verdict.describe(results_of(probe=[row])), "one kernel for a step")


def test_what_was_found_and_what_was_not_reached():
    lines = verdict.describe(results_of())
    assert len(lines) <= 10
    assert "not found right: CUDA kernels int8" in line_about(lines, "gate: open for float32, bfloat16")
    assert "3 passed, 0 failed" in line_about(lines, "tests")
    assert "1 met, 1 missed: a step 300us for 245" in line_about(lines, "targets")
    assert line_about(lines, "not reached") == "not reached: probe (there is no nvcc); memory"
    assert "1, first: ab: C5: wrong" in line_about(lines, "failed")


def test_the_full_call_says_what_it_is_for():
    peers = [{"row": name, "real_time_factor_median": f} for name, f in (("barkfast", 0.06), ("bark", 0.9))]
    lines = verdict.describe(results_of("gpu-full", peers=peers))
    assert len(lines) <= 10
    assert "barkfast 0.06, bark 0.9" in line_about(lines, "peers")
    assert "clean" in line_about(lines, "compute-sanitizer")
    assert not any(line.startswith(("best variant", "weights ahead")) for line in lines)


def test_a_question_that_fails_is_named():
    broken = results_of(ab=[{"row": "T0", "dtype": "bfloat16", "us_median": 1.0}])
    lines = verdict.describe(broken)
    assert any("the verdict failed: KeyError" in line for line in lines)
    assert line_about(lines, "failed")
