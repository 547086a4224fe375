"""What `make gpu` does when things go wrong: nothing is lost, what failed is named, and a red gate prints no time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__, gpu_tests, pages, runner
from benchmarks.budget import FULL, GPU, Budget, Step, limit_of
from benchmarks.gpu_tests import TestFile, TestRun, read_record
from benchmarks.plan import Plan
from benchmarks.process import GRACE_S, ROOT, Process, start
from benchmarks.record import NotRun, Recorder, read_fragment, settle
from benchmarks.runner import Run
from benchmarks.sanitizer import read_log


def plan_for(folder: Path, **options: Any) -> Plan:
    return Plan(smoke=True, models=folder, work=folder, deadline=time.monotonic() + 600, **options)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def await_or_fail(condition: Callable[[], Any], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.05)


def bare_run(folder: Path, **options: Any) -> Run:
    work = folder / "logs"
    work.mkdir()
    settings = {"budget": GPU, "smoke": True, "folder": folder, "work": work, "only": (), "total": 600}
    return Run(**settings | options)


def test_rows_are_on_disk_at_once_and_not_measured_twice(tmp_path):
    path, calls = tmp_path / "section.json", []

    def work() -> dict[str, Any]:
        # what came before is there, and so is the row under way
        before = read_fragment(path)
        calls.append((len(before["rows"]), before["running"]))
        return {"us_median": 1.0}

    def break_down() -> dict[str, Any]:
        raise ValueError("no such thing")

    def refuse() -> dict[str, Any]:
        raise NotRun("no such device")

    record = Recorder(path, plan_for(tmp_path, dtypes=("float32",)))
    record.measure("a", work, dtype="float32")
    record.measure("b", break_down)
    record.measure("c", refuse)
    record.measure("d", work, dtype="bfloat16")
    record.measure("e", work)
    assert calls == [(0, "a"), (1, "e")]
    assert not record.all_well
    again = Recorder(path, plan_for(tmp_path))
    again.measure("a", work)
    again.measure("b", work)
    assert len(calls) == 2
    fragment = read_fragment(path)
    assert [r["row"] for r in fragment["rows"]] == ["a", "e"]
    assert [(f["row"], f["status"]) for f in fragment["failures"]] == [
        ("b", "failed"),
        ("c", "not run"),
        ("d", "not run"),
    ]
    assert "no such thing" in fragment["failures"][0]["reason"]
    assert not fragment["complete"]


def test_nothing_is_begun_when_the_time_is_spent(tmp_path):
    plan = Plan(smoke=True, models=tmp_path, work=tmp_path, deadline=time.monotonic() + 1)
    assert Recorder(tmp_path / "s.json", plan).measure("a", lambda: {}) is None
    assert "time was spent" in read_fragment(tmp_path / "s.json")["failures"][0]["reason"]


def test_a_process_is_ended_at_its_limit_with_its_children(tmp_path):
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(mark)!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    process = start("sleeper", python(code), tmp_path / "log", limit=0.5)
    await_or_fail(process.poll)
    assert process.status == "timeout" and "limit" in process.reason
    time.sleep(1.8)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("print('fine')", "ok", ""),
        ("print('half a row'); raise SystemExit(3)", "failed", "status 3: half a row"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed", "SIGSEGV"),
    ],
)
def test_how_a_process_ended_is_named(tmp_path, code, status, reason):
    process = start("process", python(code), tmp_path / "log", limit=30)
    await_or_fail(process.poll)
    assert process.status == status and reason in process.reason


def test_a_command_that_is_not_there(tmp_path):
    process = start("absent", [str(tmp_path / "absent")], tmp_path / "log", limit=5)
    await_or_fail(process.poll)
    assert process.status == "failed" and "could not be started" in process.reason


# A section that writes a row, crashes at the second, and goes on with the third when it is started again.
CRASHING = """
import os, sys, time
from pathlib import Path
from benchmarks.plan import Plan
from benchmarks.record import Recorder
here = Path(sys.argv[1])
plan = Plan(smoke=True, models=here, work=here, deadline=time.monotonic() + 300)
record = Recorder(here / "decode.json", plan)
record.measure("first", lambda: {})
record.measure("second", lambda: os.abort())
record.measure("third", lambda: {})
record.finish()
"""


def test_a_section_that_crashes_is_named_and_goes_on_behind_the_row(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(runner.__file__).parents[1]))
    here = bare_run(tmp_path)
    monkeypatch.setattr(here, "command", lambda name, *_: [*python(CRASHING), str(here.work)])
    here.run_section(Step("decode", 120))
    fragment = here.fragments["decode"]
    assert [r["row"] for r in fragment["rows"]] == ["first", "third"]
    assert fragment["failures"][0]["row"] == "second" and "SIGABRT" in fragment["failures"][0]["reason"]
    content = here.save(complete=True)
    assert any(line.startswith("decode: second: ") and "decode.log" in line for line in content["failed"])
    assert not content["ok"]


def test_a_section_that_hangs_keeps_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(runner.__file__).parents[1]))
    here = bare_run(tmp_path)
    hanging = CRASHING.replace("os.abort()", "time.sleep(600)")
    monkeypatch.setattr(here, "command", lambda name, *_: [*python(hanging), str(here.work)])
    begin = here.start_section

    def begin_and_hang(*step: Any) -> Process:
        process = begin(*step)
        # The machine may be slow to get there: the time is over once the section hangs, and not before.
        await_or_fail(lambda: process.poll() or read_fragment(here.fragment("decode"))["running"] == "second")
        process.limit = 0.0
        return process

    monkeypatch.setattr(here, "start_section", begin_and_hang)
    here.run_section(Step("decode", 120))
    fragment = here.fragments["decode"]
    assert [r["row"] for r in fragment["rows"]] == ["first"]
    assert "timeout" in fragment["failures"][0]["reason"]
    assert here.steps[-1]["status"] == "timeout"
    assert any("decode: timeout" in line for line in here.save(complete=True)["failed"])


def test_a_section_that_cannot_even_start_is_not_tried_again(tmp_path, monkeypatch):
    here, starts = bare_run(tmp_path), []

    def command(name: str, *_: Any) -> list[str]:
        starts.append(name)
        return python("raise ImportError('no such module')")

    monkeypatch.setattr(here, "command", command)
    here.run_section(Step("decode", 120))
    assert starts == ["decode"]
    assert here.steps[-1]["status"] == "failed" and "no such module" in here.steps[-1]["reason"]


def test_a_red_gate_times_nothing(tmp_path, monkeypatch):
    here = bare_run(tmp_path)
    monkeypatch.setattr(here, "command", lambda *_: pytest.fail("a section was started"))
    here.gate = {"open": False, "dtypes": [], "reason": "not right: semantic float32"}
    timed_steps = [step for step in (*GPU.steps, *FULL.steps) if step.timed]
    for step in timed_steps:
        here.run_section(step)
    content = here.save(complete=True)
    page = pages.render(content)
    names = {"ab", "decode", "clips", "batch", "stages", "profile", "decode all"}
    assert {step.name for step in timed_steps} == names
    assert not any(section["rows"] for section in content["sections"].values())
    assert "RED" in page and "gate is red" in page
    timed = [target for target in content["targets"] if target["unit"] in ("us", "x", "GB")]
    assert timed and all(target["verdict"] == "not run" and target["value"] is None for target in timed)


def test_a_killed_row_is_settled():
    fragment = {"rows": [], "failures": [], "running": "large", "complete": False}
    assert settle(fragment, "SIGKILL")["failures"] == [{"row": "large", "status": "failed", "reason": "SIGKILL"}]
    assert settle(fragment | {"running": None}, "SIGKILL")["failures"] == []


TESTS = """
import os, time
import pytest
import torch

def test_passes():
    pass

def test_fails():
    assert 1 == 2, "not equal"

@pytest.mark.skip(reason="not here")
def test_is_skipped():
    pass

def test_{how}():
    {action}
"""


def test_tests_that_crash_or_hang_keep_the_outcomes_before(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(runner.__file__).parents[1]))
    files: list[TestFile] = []
    for how, action in (("crashes", "os.abort()"), ("hangs", "time.sleep(600)")):
        files.append(TestFile(tmp_path / f"test_that_{how}.py"))
        files[-1].path.write_text(TESTS.format(how=how, action=action))
    broken = TestFile(tmp_path / "test_without_import.py")
    broken.path.write_text("import no_such_module\n")
    monkeypatch.setattr(gpu_tests, "AT_A_TIME", 3)
    monkeypatch.setattr(gpu_tests, "HUNG_S", 0.0)
    tests = TestRun([*files, broken], tmp_path, limit=120)
    await_or_fail(lambda: not tests.poll() and [process.name for process in tests.running] == ["test_that_hangs"])
    await_or_fail(lambda: (read_record(tmp_path / "test_that_hangs.jsonl")["at"] or "").endswith("test_hangs"))
    # Its time is over once it hangs: how soon that is depends on the machine.
    tests.running[0].limit = 0.0
    assert tests.poll()
    report = tests.report()
    assert (report["passed"], report["skipped"]) == (2, 2)
    messages = {failure["test"].split("::")[-1]: failure["message"] for failure in report["failures"]}
    assert "not equal" in messages["test_fails"]
    assert "SIGABRT" in messages["test_that_crashes"] and "test_crashes" in messages["test_that_crashes"]
    assert "limit" in messages["test_that_hangs"] and "test_hangs" in messages["test_that_hangs"]
    assert any("no_such_module" in message for message in messages.values())
    assert report["skips"] == {"Skipped: not here": 2}


@pytest.mark.parametrize(
    ("text", "rows", "status", "expected"),
    [
        ("========= ERROR SUMMARY: 0 errors", 7, "ok", "clean"),
        ("========= Invalid __global__ read of size 4\n========= ERROR SUMMARY: 3 errors", 7, "failed", "errors"),
        ("========= Error: Device not supported", 0, "failed", "not run"),
        ("Traceback", 2, "failed", "failed"),
        ("", 2, "timeout", "timeout"),
    ],
)
def test_what_the_sanitizer_said(tmp_path, text, rows, status, expected):
    log = tmp_path / "log"
    log.write_text(text)
    found = read_log(log, rows, status, "ended")
    assert found["status"] == expected
    assert found["errors"] == {"clean": 0, "errors": 3}.get(expected)


@pytest.mark.parametrize(("budget", "limit"), [(GPU, 300), (FULL, 240)], ids=["gpu", "gpu-full"])
def test_the_worst_case_fits_the_limit(budget: Budget, limit: int):
    # Every step takes its limit, and one of them does not end when it is asked to.
    worst = sum(limit_of(group) for group in budget.groups) + 2 * GRACE_S + budget.reserve
    assert worst <= budget.total == limit
    # What prints times is alone on the device, and comes after what checks it.
    alone = [group for group in budget.groups if any(step.timed or step.kind == "probe" for step in group)]
    assert alone and all(len(group) == 1 for group in alone)
    names = [step.name for step in budget.steps]
    assert all(names.index("gate") < names.index(step.name) for step in budget.steps if step.timed)
    assert len(set(names)) == len(names)


def test_what_earlier_steps_did_not_need_is_handed_on(tmp_path):
    here = bare_run(tmp_path, smoke=False, total=209)
    here.later = 40
    assert here.limit(Step("decode", 60)) == 60
    assert here.limit(Step("ab", 60, stretch=20)) == 80
    # 200 are left, of which those behind it keep 40.
    assert here.limit(Step("ab", 150, stretch=20)) == pytest.approx(160, abs=1)
    assert here.limit(Step("ab", 190, stretch=20)) == pytest.approx(190, abs=1)


def test_what_is_not_asked_for_is_not_run(tmp_path):
    here = bare_run(tmp_path, only=("decode",))
    here.run_section(Step("peers", 30))
    assert here.steps[-1]["status"] == "not run" and here.steps[-1]["reason"] == "not asked for"
    assert here.save(complete=True)["failed"] == []
    kept = ("decode", "environment", "gate", "variants CUDA")
    assert [here.why_skip(Step(name, 30)) for name in kept] == [None] * 4


def test_no_setting_of_the_users_reaches_the_benchmark(monkeypatch):
    names = ("PYTHONPATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PIP_NO_INDEX", "PIP_RETRIES")
    for name in (*names, "PYTHONUNBUFFERED", "PYTHONFAULTHANDLER"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("TRITON_INTERPRET", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.setenv("BARKFAST_DTYPE", "float32")
    runner.prepare_environment()
    assert "BARKFAST_DTYPE" not in os.environ
    assert os.environ["PYTHONPATH"].split(os.pathsep)[1].endswith("kernels")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so it would run")
def test_without_a_gpu_nothing_is_begun(tmp_path):
    # In a process of its own, for it sets up the environment.
    command = [sys.executable, "-m", "benchmarks", "gpu", "--results", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == __main__.UNUSABLE
    assert "sees no CUDA device" in result.stderr and "--smoke" in result.stdout
    assert not list(tmp_path.iterdir())
