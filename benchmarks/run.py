"""One run of every step of `make gpu`, in order, whatever goes wrong on the way; written down anew after each."""

import time
from pathlib import Path
from typing import Any

from benchmarks import budget, results, table
from benchmarks.gate import read_gate
from benchmarks.gpu_tests import TestRun, find_tests
from benchmarks.process import Process, start
from benchmarks.record import read_fragment
from benchmarks.runner import Runner
from benchmarks.sanitizer import ENV, find_tool, read_log, wrap
from benchmarks.step import Step

# All but the compilations, of which one shows that they run.
SMOKE_CHECKS = ("gate", "tests", "weights", "sanitizer", "compile small")
# Processes beside one another must not each wait with as many threads as there are cores.
BESIDE = {"OMP_NUM_THREADS": "2"}
SMOKE_TESTS = "def test_passes():\n    pass\n"


class Run(Runner):
    """One run of everything on a GPU; smoke: on the CPU, in Triton's interpreter."""

    sections_package = "benchmarks.sections"

    def __init__(self, **options: Any) -> None:
        super().__init__(reserve=budget.RESERVE, **options)
        self.tests: dict[str, Any] | None = None
        self.sanitizer: dict[str, Any] | None = None

    def merge(self, *, complete: bool) -> dict[str, Any]:
        return results.merge(**self.so_far(complete), tests=self.tests, sanitizer=self.sanitizer)

    def render(self, merged: dict[str, Any]) -> str:
        return table.render(merged)

    def run_checks(self) -> None:
        """All of them beside one another (two at a time in a smoke test), and the gate's answer."""
        at_a_time = 2 if self.smoke else len(budget.CHECKS)
        waiting = [step for step in budget.CHECKS if not self.smoke or step.name in SMOKE_CHECKS]
        active: list[tuple[Step, Process | TestRun]] = []
        while waiting or active:
            while waiting and len(active) < at_a_time:
                step = waiting.pop(0)
                if (started := self.start_check(step)) is not None:
                    active.append((step, started))
            for step, work in [pair for pair in active if pair[1].poll()]:
                active.remove((step, work))
                self.finish_check(step, work)
            time.sleep(0.05)

    def start_check(self, step: Step) -> Process | TestRun | None:
        """None if it is not to be run."""
        section = step.name not in ("tests", "sanitizer")
        if (reason := self.why_skip(step)) is not None:
            self.skip(step, reason, section=section)
            return None
        limit = self.limit(step)
        if step.name == "tests":
            files = self.smoke_tests() if self.smoke else find_tests()
            if not files:
                self.skip(step, "there are no tests", section=False)
                return None
            tests = TestRun(files, self.work, limit)
            self.running.append(tests)
            return tests
        if step.name == "sanitizer":
            tool = None if self.smoke else find_tool()
            if tool is None:
                reason = "needs a CUDA device" if self.smoke else "compute-sanitizer is not installed"
                self.sanitizer = {"status": "not run", "errors": None, "reason": reason}
                self.skip(step, reason, section=False)
                return None
            command = wrap(tool, self.command("sanitize", limit))
            process = start(step.name, command, self.log(step.name), limit, ENV)
            self.running.append(process)
            return process
        return self.start_section(step, limit, BESIDE)

    def smoke_tests(self) -> list[Path]:
        path = self.work / "test_smoke.py"
        path.write_text(SMOKE_TESTS, encoding="utf-8")
        return [path]

    def finish_check(self, step: Step, work: Process | TestRun) -> None:
        """Take what a check found."""
        if isinstance(work, TestRun):
            self.running.remove(work)
            self.tests = work.report()
            count = len(self.tests["failures"])
            left = [name for name, how in self.tests["files"].items() if how.startswith("not run")]
            reason = f"{self.tests['passed']} passed, {count} failed, {self.tests['skipped']} skipped"
            reason += f", not run: {', '.join(left)}" if left else ""
            status = "rows failed" if count else "timeout" if left else "ok"
            self.note(step.name, status, reason, work.seconds, step.limit)
        elif step.name == "sanitizer":
            self.running.remove(work)
            rows = len(read_fragment(self.fragment("sanitize"))["rows"])
            self.sanitizer = read_log(self.log(step.name), rows, work.status, work.reason)
            status = {"clean": "ok", "not run": "not run"}.get(self.sanitizer["status"], "rows failed")
            self.note(step.name, status, self.sanitizer["reason"], work.seconds, work.limit)
        else:
            self.finish_section(step, work)
        if step.name == "gate":
            self.gate = read_gate(self.fragments["gate"])

    def run_steps(self) -> None:
        self.run_section(budget.ENVIRONMENT)
        self.name_results()
        self.run_checks()
        for step in budget.SECTIONS:
            self.run_section(step)
