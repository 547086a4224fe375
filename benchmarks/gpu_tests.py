"""The tests of the kernels and of the engine, a process per file: one that loses the device loses only its own."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT, Process, start
from benchmarks.pytest_record import VARIABLE

# The runtime's before the kernels': there are fewer, and they say more. The demo voice shows whether rounding is heard.
FOLDERS = ("tests/gpu", "tests/demo", "tests/cuda_engine", "tests/ops")
# Files whose cases each compile kernels anew, split by size: each part is a process.
_SIZES = ("1024-16", "768-12", "not 1024-16 and not 768-12")
PARTS = {f"tests/ops/{name}.py": _SIZES for name in ("test_hopper", "test_hopper_head")}
AT_A_TIME = min(8, max(1, (os.cpu_count() or 2) // 2))
# With less than this no further file is begun.
LEAST_S = 5.0
# A test that was at work for longer than this when its file's time was over hung; other files were only cut off.
HUNG_S = 30.0
OPTIONS = ("-q", "--maxfail=40", "-p", "no:cacheprovider", "-p", "benchmarks.pytest_record", "--tb=short")


@dataclass(frozen=True)
class TestFile:
    """One process: the tests of a file, or those of them that pytest's -k selects."""

    __test__ = False

    path: Path
    select: str = ""

    @property
    def name(self) -> str:
        """Among the logs: with its folder, since two folders may hold files of one name."""
        tests, path = ROOT / "tests", self.path
        name = "-".join(path.relative_to(tests).with_suffix("").parts) if path.is_relative_to(tests) else path.stem
        return f"{name}-{re.sub(r'[^a-z0-9]+', '-', self.select)}".rstrip("-")

    def exists(self) -> bool:
        return self.path.is_file()


def find_tests(folders: tuple[str, ...] = FOLDERS) -> list[TestFile]:
    """The files with tests, as far as their folders exist; those that compile much in parts."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("test_*.py"))]
    return [
        TestFile(path, part)
        for path in files
        for part in PARTS.get(path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "", ("",))
    ]


def hopper_tests() -> list[TestFile]:
    """Of the CUDA kernels, in the sizes of Bark-large, and of the engine with them."""
    ops = ROOT / "tests" / "ops"
    return [
        TestFile(ops / "test_hopper.py", "1024-16 and not compiler"),
        TestFile(ops / "test_hopper_head.py", "1024-16 and not compiler"),
        TestFile(ROOT / "tests" / "cuda_engine" / "test_hopper.py"),
    ]


# By name, as a budget asks for them.
SETS: dict[str, Callable[[], list[TestFile]]] = {"all": find_tests, "hopper": hopper_tests}


class TestRun:
    """Tests on their way: to be polled until they have ended.

    Args:
        files: with tests.
        work: where the logs go.
        limit: seconds for all of them.
    """

    __test__ = False

    def __init__(self, files: list[TestFile], work: Path, limit: float) -> None:
        self.work, self.deadline = work, time.monotonic() + limit
        self.started = time.monotonic()
        self.waiting = list(files)
        self.running: list[Process] = []
        self.ended: list[Process] = []
        self.cut_off: list[str] = []
        self.seconds = 0.0

    def poll(self) -> bool:
        """Start what there is room for; whether all have ended."""
        for process in [process for process in self.running if process.poll()]:
            if process.status == "timeout" and not self._hangs(process):
                self.cut_off.append(process.name)
            self.running.remove(process)
            self.ended.append(process)
        while self.waiting and len(self.running) < AT_A_TIME and time.monotonic() < self.deadline - LEAST_S:
            self.running.append(self._start(self.waiting.pop(0)))
        done = not self.running
        if done and not self.seconds:
            self.seconds = round(time.monotonic() - self.started, 1)
        return done

    def stop(self) -> None:
        """End all of them."""
        self.waiting.clear()
        for process in self.running:
            process.stop()

    def _start(self, file: TestFile) -> Process:
        command = [sys.executable, "-m", "pytest", *OPTIONS, *(("-k", file.select) if file.select else ())]
        # No samples; the option is that of tests/sweeps.py.
        command += ["--all"] if file.path.is_relative_to(ROOT / "tests") else []
        env = {VARIABLE: str(self._record(file.name))}
        left = max(0.0, self.deadline - time.monotonic())
        return start(file.name, [*command, str(file.path)], self.work / f"{file.name}.log", left, env)

    def _record(self, name: str) -> Path:
        return self.work / f"{name}.jsonl"

    def _hangs(self, process: Process) -> bool:
        """Whether it has written nothing down for long."""
        path = self._record(process.name)
        age = time.time() - path.stat().st_mtime if path.exists() else time.monotonic() - process.started
        return age > HUNG_S

    def report(self) -> dict[str, Any]:
        """Counts, failures with their first line, and which files did not end by themselves; at any time."""
        total: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "skips": {}, "files": {}}
        for process in [*self.ended, *self.running]:
            outcomes = read_record(self._record(process.name))
            for key in ("passed", "failed", "skipped"):
                total[key] += outcomes[key]
            total["failures"] += outcomes["failures"]
            for reason, count in outcomes["skips"].items():
                total["skips"][reason] = total["skips"].get(reason, 0) + count
            if process.status == "running":
                total["files"][process.name] = "under way"
                continue
            if process.name in self.cut_off:
                total["files"][process.name] = f"not run to its end: the time was spent at {outcomes['at']}"
                continue
            # 0 is all passed, 1 some failed (and is in the record), 5 none were found.
            broke = process.status == "timeout" or process.returncode not in (0, 1, 5)
            total["files"][process.name] = process.reason if broke else "ended"
            if broke:
                at = f" while at {outcomes['at']}" if outcomes["at"] else ""
                total["failures"].append({"test": process.name, "message": f"{process.reason}{at}"})
        for file in list(self.waiting):
            total["files"][file.name] = "not run: the time was spent"
        return total


def read_record(path: Path) -> dict[str, Any]:
    """What the plugin wrote for one file; `at` is the test that began and never ended."""
    result: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "skips": {}, "at": None}
    if not path.exists():
        return result
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            # The process was ended while it wrote.
            continue
        outcome = entry["outcome"]
        if outcome in ("began", "ended"):
            result["at"] = entry["test"] if outcome == "began" else None
            continue
        result[outcome] += 1
        if outcome == "failed":
            result["failures"].append({"test": entry["test"], "message": entry["message"]})
        elif outcome == "skipped":
            reason = entry["message"]
            result["skips"][reason] = result["skips"].get(reason, 0) + 1
    return result
