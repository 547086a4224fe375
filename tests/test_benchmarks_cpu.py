"""That the run on a CPU plans what its targets need, and that all of it runs, with the smallest model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from barkfast.native import native_status
from benchmarks.budget import CPU_DTYPES, count_threads, cpu_budget
from benchmarks.plan import Plan
from benchmarks.process import ROOT
from benchmarks.runner import Run

needs_native = pytest.mark.skipif(not native_status()[0], reason=f"native module {native_status()[1]}")


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_the_plan_holds_what_the_targets_need(cores):
    threads = count_threads(cores)
    assert threads == ((1,) if cores == 1 else (1, cores))
    plan = cpu_budget(threads).steps
    names = [step.name for step in plan]
    assert len(names) == len(set(names))
    assert names.index("gate") < min(i for i, step in enumerate(plan) if step.timed)
    clips = [f"clips {size} int8 {cores}" for size in ("small", "large")]
    assert {f"read {cores}", f"linear {cores}", "load", "gate large", *clips} <= {*names}
    smoke = cpu_budget(threads, smoke=True).steps
    assert {step.section for step in smoke} == {step.section for step in plan} and len(smoke) < len(plan)


def bare_run(folder: Path, *, full: bool = False) -> Run:
    return Run(budget=cpu_budget((1, 2), full=full), smoke=True, folder=folder, work=folder, total=600)


def test_what_takes_many_minutes_is_run_only_if_asked_for(tmp_path):
    for full in (False, True):
        here = bare_run(tmp_path, full=full)
        (step,) = [step for step in here.budget.steps if step.name == "peers large"]
        assert here.why_skip(step) is None if full else "--full" in here.why_skip(step)


def test_a_sections_process_has_the_steps_threads(tmp_path, monkeypatch):
    here, seen = bare_run(tmp_path), {}

    def start(name: str, command: list[str], log: Path, limit: float, env: dict[str, str]) -> None:
        seen.update(env, command=command)

    monkeypatch.setattr("benchmarks.runner.start", start)
    here.start_section(next(step for step in here.budget.steps if step.name == "read 2"), 10)
    assert (seen["BARKFAST_THREADS"], seen["OMP_NUM_THREADS"]) == ("2", "2")
    plan = Plan.read(seen["command"][-1])
    assert plan.threads == 2 and hash(plan) and plan.models == here.models and 0 < plan.time_left < 10
    assert Path(seen["BARKFAST_CACHE"]).parent == here.models


def run_benchmark(folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks", "cpu", "--smoke", "--results", str(folder), *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    files = list(folder.glob("*.json"))
    return result, json.loads(files[0].read_text()) if files else {}


@pytest.mark.slow
@needs_native
def test_everything_runs(tmp_path):
    result, content = run_benchmark(tmp_path)
    assert result.returncode == 0, result.stdout[-3000:]
    assert content["ok"] and content["smoke"] and content["failed"] == []
    # Without the reference or transformers, or a recognizer, these have rows that were not run, and no others.
    failures = [f for section in content["sections"].values() for f in section["failures"]]
    assert {f["status"] for f in failures} <= {"not run"}
    assert all(f["step"] == "peers small" or "phones heard" in f["row"] for f in failures), failures
    assert {*content["sections"]} == {step.section for step in cpu_budget((1,)).steps} - {"environment"}
    assert all(section["rows"] or name == "peers" for name, section in content["sections"].items())
    assert content["gate"]["dtypes"] == [*CPU_DTYPES]
    assert "The numbers mean nothing" in (tmp_path / f"{next(tmp_path.glob('*.json')).stem}.md").read_text()


@needs_native
def test_more_threads_than_cores_are_refused(tmp_path):
    result, _ = run_benchmark(tmp_path, "--threads", "4096")
    assert result.returncode == 2 and "expected numbers from 1 to" in result.stderr
