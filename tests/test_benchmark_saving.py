"""What a call on a GPU leaves in its folder: few files, each of them whole at any time, whoever is killed."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import runner, saving
from benchmarks.budget import FULL, GPU, Budget, Step
from benchmarks.process import ROOT
from benchmarks.record import write_json
from benchmarks.runner import Run, Unusable
from benchmarks.saving import Saver, pack_logs, replace_file

# A section of that name, whose rows are what the arguments ask for: "ok", "crash", "hang", "slow".
SECTION = """
import os, sys, time
from pathlib import Path
from benchmarks.plan import Plan
from benchmarks.record import Recorder

work, name, rows = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
if name == "environment":
    rows = ["ok"]
plan = Plan(smoke=True, models=work, work=work, deadline=time.monotonic() + 300)
record = Recorder(work / f"{name.replace(' ', '-')}.json", plan)

def slow():
    time.sleep(0.3)
    if os.getppid() != parent:
        os._exit(1)

parent = os.getppid()
DO = {"crash": os.abort, "hang": lambda: time.sleep(600), "slow": slow, "ok": lambda: None}
for i, how in enumerate(rows):
    def row(how=how):
        DO[how]()
        return {"ok": True, "dtype": "float32", "device": {"name": "a made-up GPU"}}
    record.measure(f"{name} {i} {how}", row)
record.finish()
"""
# What may be left; the last is there only if a saving was cut.
MOST_FILES = 4


def command_of(work: Path, name: str, *rows: str) -> list[str]:
    return [sys.executable, "-c", SECTION, str(work), name, *rows]


def make_run(folder: Path, budget: Budget = GPU, **options: Any) -> Run:
    """A run whose sections are made up; its results go to the folder, and once more to `out` beneath it."""
    work = folder / "logs"
    work.mkdir()
    here = Run(budget=budget, smoke=True, folder=folder, work=work, total=300, **options)
    here.out = folder / "out"
    return here


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up sections find the sources; nothing is built."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("benchmarks.probe.find_compiler", lambda: None)


def read_whole(out: Path) -> dict[str, Any]:
    """Every file of a folder, read whole; an error if one is not."""
    found: dict[str, Any] = {}
    for path in sorted(out.iterdir()):
        if path.name.startswith(saving.PART):
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            found[path.name] = json.loads(content)
        elif path.suffix == ".tgz":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                # Reading all of them checks the archive's checksums.
                found[path.name] = {member.name: archive.extractfile(member).read() for member in archive}
        else:
            found[path.name] = content.decode()
    return found


@contextmanager
def polling(out: Path) -> Iterator[list[dict[str, Any]]]:
    """Within the block a reader looks again and again; what it saw must have been whole each time."""
    seen: list[dict[str, Any]] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                if out.is_dir():
                    seen.append(read_whole(out))
                    assert len(os.listdir(out)) <= MOST_FILES + 1
            except FileNotFoundError:
                # The list of names was older than a renaming: of the temporary name, as no other ever goes away.
                continue
            except BaseException as error:
                errors.append(error)
                return
            time.sleep(0.005)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        yield seen
    finally:
        done.set()
        reader.join()
    assert not errors, errors


def test_no_reader_ever_sees_half_a_file(tmp_path):
    path, done, wrong = tmp_path / "results.json", threading.Event(), []
    replace_file(path, b"[]")

    def look() -> None:
        while not done.is_set():
            try:
                json.loads(path.read_bytes())
            except ValueError as error:
                wrong.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(200):
        replace_file(path, json.dumps(["x" * 2000] * (i % 50)).encode())
    done.set()
    reader.join()
    assert not wrong
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_packed_logs_are_small_and_leave_out_what_is_no_log(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "MOST_BYTES", 100)
    (tmp_path / "a.log").write_bytes(b"begin" + b"x" * 200 + b"end")
    (tmp_path / "models").mkdir()
    for name in ("probe", f"{saving.PART}7"):
        (tmp_path / name).write_text("no log")
    with tarfile.open(fileobj=io.BytesIO(pack_logs(tmp_path))) as archive:
        assert archive.getnames() == ["logs/a.log"]
        content = archive.extractfile("logs/a.log").read()
    assert len(content) == 100 and content.endswith(b"end")


def test_a_saving_that_fails_does_not_end_the_saving():
    calls = threading.Semaphore(0)

    def fail() -> None:
        calls.release()
        raise OSError("no room")

    saver = Saver(fail, every_s=0.01)
    for _ in range(3):
        assert calls.acquire(timeout=60)
    saver.close()


def test_rows_of_a_section_under_way_are_saved_and_few_files_are_left(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SAVE_S", 0.05)
    here = make_run(tmp_path)
    rows = {"ab": ["ok", "slow", "slow", "slow"], "probe": ["ok"]}
    monkeypatch.setattr(here, "command", lambda name, *_: command_of(here.work, name, *rows.get(name, ["ok"])))
    with polling(here.out) as seen:
        merged = here.run()
    (json_name,) = [name for name in seen[-1] if name.startswith("a-made-up-gpu") and name.endswith(".json")]
    counts = [
        len(content[json_name]["sections"]["ab"]["rows"])
        for content in seen
        if "ab" in content.get(json_name, {}).get("sections", {})
    ]
    # While the section ran, and in order.
    assert {1, 2, 3} & {*counts} and counts == sorted(counts)
    left = read_whole(here.out)
    page = json_name.replace(".json", ".md")
    assert {*left} == {json_name, page, "logs.tgz"}
    assert len(os.listdir(here.out)) <= MOST_FILES
    assert left[json_name] == json.loads(json.dumps(merged)) and left[json_name]["complete"]
    assert "logs/ab.log" in left["logs.tgz"]


@pytest.mark.parametrize("budget", [GPU, FULL], ids=lambda budget: budget.name)
def test_every_step_of_a_call_is_reached_and_all_that_goes_wrong_is_named(tmp_path, monkeypatch, budget):
    here = make_run(tmp_path, budget)
    monkeypatch.setattr(here, "_in_smoke", lambda step: True)
    section = "decode" if budget is GPU else "stages"
    bad = {section: ["ok", "crash", "ok"]}
    monkeypatch.setattr(here, "command", lambda name, *_: command_of(here.work, name, *bad.get(name, ["ok"])))
    merged = here.run()
    names = {step["name"]: step["status"] for step in merged["steps"]}
    assert {*names} == {step.name for step in budget.steps}
    # The section that crashed came to its end when it was started again; what failed in it is a row.
    expected = dict.fromkeys(("build", "probe", "sanitizer", "decode all"), "not run")
    assert {name: status for name, status in names.items() if status != "ok"}.items() <= expected.items()
    (failure,) = merged["sections"][section]["failures"]
    assert len(merged["sections"][section]["rows"]) == 2
    assert "SIGABRT" in failure["reason"]
    assert any(line.startswith(f"{section}: {failure['row']}") for line in merged["failed"])
    assert 1 <= len(merged["verdict"]) <= 10


def test_a_row_that_hangs_is_named_and_the_section_goes_on_behind_it(tmp_path, monkeypatch):
    here = make_run(tmp_path)
    here.scale = 1
    rows = ["ok", "hang", "ok", "hang", "ok"]
    monkeypatch.setattr(here, "command", lambda name, *_: command_of(here.work, name, *rows))
    here.run_section(Step("ab", 200, row_limit=2))
    fragment = here.fragments["ab"]
    assert [row["row"] for row in fragment["rows"]] == ["ab 0 ok", "ab 2 ok", "ab 4 ok"]
    assert [failure["row"] for failure in fragment["failures"]] == ["ab 1 hang", "ab 3 hang"]
    assert all("limit of 2 s for one row" in failure["reason"] for failure in fragment["failures"])
    assert fragment["complete"]


def test_what_cannot_run_here_leaves_nothing(tmp_path, monkeypatch):
    here = make_run(tmp_path)
    lack = {"row": "usable", "status": "not run", "reason": "no torch"}
    write_json(here.work / "environment.json", {"rows": [], "failures": [lack], "running": None, "complete": True})
    monkeypatch.setattr(here, "command", lambda name, *_: [sys.executable, "-c", ""])
    with pytest.raises(Unusable, match="no torch"):
        here.run()
    assert not here.out.exists() and not list(tmp_path.glob("*.json"))


# A runner that is killed while a section goes on, saving as fast as it can.
RUNNER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_benchmark_saving as t
from benchmarks import probe, runner
probe.find_compiler = lambda: None
runner.SAVE_S = 0.005
here = t.make_run(Path(sys.argv[1]))
here.command = lambda name, *_: t.command_of(here.work, name, *["slow"] * 100)
here.run()
"""


def test_a_killed_runner_leaves_the_last_saving_whole(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", RUNNER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as popen:
        try:
            await_or_fail(lambda: any(len(rows) > 1 for rows in rows_saved(out)))
        finally:
            popen.send_signal(signal.SIGKILL)
    assert popen.wait() == -signal.SIGKILL
    left = read_whole(out)
    assert any(len(rows) > 1 for rows in rows_saved(out))
    assert "logs.tgz" in left and len(os.listdir(out)) <= MOST_FILES + 1


def rows_saved(out: Path) -> list[list[Any]]:
    """Of each section, by the results that are there."""
    results = [json.loads(path.read_text()) for path in out.glob("*.json")]
    return [section["rows"] for content in results for section in content["sections"].values()]


def await_or_fail(condition: Callable[[], Any], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.05)
