"""One run of every step, in order, whatever goes wrong on the way; written down anew after each."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import budget, results, table
from benchmarks.budget import Step
from benchmarks.gate import read_gate
from benchmarks.gpu_tests import TestRun, find_tests
from benchmarks.process import Process, start
from benchmarks.record import read_fragment, settle, write_json
from benchmarks.sanitizer import ENV, find_tool, read_log, wrap

# A section that crashes is started again this often, for the rows behind the one it crashed at.
RESTARTS = 3
# With less than this a step is not begun.
LEAST_S = 5.0
# All but the compilations, of which one shows that they run.
SMOKE_CHECKS = ("gate", "tests", "weights", "sanitizer", "compile small")
# Processes beside one another must not each wait with as many threads as there are cores.
BESIDE = {"OMP_NUM_THREADS": "2"}
SMOKE_TESTS = "def test_passes():\n    pass\n"


class Run:
    """One run of everything.

    Args:
        smoke: on the CPU, in Triton's interpreter.
        folder: for the results.
        work: for logs and fragments.
        only: the steps that are wanted; empty for all.
    """

    def __init__(self, *, smoke: bool, folder: Path, work: Path, only: tuple[str, ...], total: float) -> None:
        self.smoke, self.folder, self.work, self.only = smoke, folder, work, only
        self.begin = time.monotonic()
        self.deadline = self.begin + total - budget.RESERVE
        self.models = Path(tempfile.mkdtemp(prefix="benchmark-models-"))
        self.out = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
        self.path: Path | None = None
        self.steps: list[dict[str, Any]] = []
        self.fragments: dict[str, dict[str, Any]] = {}
        self.gate: dict[str, Any] = {"open": False, "dtypes": [], "reason": "not reached"}
        self.tests: dict[str, Any] | None = None
        self.sanitizer: dict[str, Any] | None = None
        self.running: list[Process | TestRun] = []

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begin:4.0f} s] {text}", flush=True)

    def log(self, name: str) -> Path:
        return self.work / f"{name.replace(' ', '-')}.log"

    def fragment(self, name: str) -> Path:
        return self.work / f"{name.replace(' ', '-')}.json"

    def limit(self, step: Step) -> float:
        """Seconds the step may take, by what is left of everything."""
        return min(step.limit, self.deadline - time.monotonic())

    def why_skip(self, step: Step) -> str | None:
        """Why a step is not to be begun, if it is not."""
        if self.only and step.name not in self.only:
            return "not asked for"
        if step.timed and not self.gate["open"]:
            return "the correctness gate is red"
        if self.limit(step) < LEAST_S:
            return "the time for everything was spent"
        return None

    def skip(self, step: Step, reason: str, *, section: bool = True) -> None:
        """Write down that a step was not run."""
        self.note(step.name, "not run", reason, 0.0, 0.0)
        if section:
            failure = {"row": step.name, "status": "not run", "reason": reason}
            self.fragments[step.name] = {"rows": [], "failures": [failure], "complete": False, "reason": reason}

    def note(self, name: str, status: str, reason: str, seconds: float, limit: float) -> None:
        """Write down how a step went, and everything so far."""
        log = self.log(name)
        self.steps.append(
            {
                "name": name,
                "status": status,
                "reason": reason,
                "seconds": seconds,
                "limit": round(limit, 1),
                "log": log.name if log.exists() else "none",
            }
        )
        self.say(f"{name}: {status}{f' in {seconds:.0f} s' if seconds else ''}{f': {reason}' if reason else ''}")
        self.save(complete=False)

    def save(self, *, complete: bool) -> dict[str, Any]:
        """The results so far, written once the device has a name."""
        merged = results.merge(
            smoke=self.smoke,
            complete=complete,
            seconds=time.monotonic() - self.begin,
            steps=self.steps,
            fragments=self.fragments,
            gate=self.gate,
            tests=self.tests,
            sanitizer=self.sanitizer,
        )
        if self.path is not None:
            results.write(self.path, merged, table.render(merged), self.work, self.out)
        return merged

    def command(self, name: str, seconds: float) -> list[str]:
        """A section's process."""
        command = [sys.executable, "-m", "benchmarks.section", name, "--out", str(self.fragment(name))]
        command += ["--work", str(self.work), "--models", str(self.models), "--seconds", f"{max(1, seconds - 2):.1f}"]
        if self.gate["open"]:
            command += ["--dtypes", ",".join(self.gate["dtypes"])]
        return command + (["--smoke"] if self.smoke else [])

    def start_section(self, step: Step, limit: float, env: dict[str, str] | None = None) -> Process:
        process = start(step.name, self.command(step.name, limit), self.log(step.name), limit, env)
        self.running.append(process)
        return process

    def finish_section(self, step: Step, process: Process, *, last: bool = True) -> str:
        """Take what a section's process wrote; returns how it went."""
        self.running.remove(process)
        fragment = settle(read_fragment(self.fragment(step.name)), f"{process.status}: {process.reason}")
        status, reason = process.status, process.reason
        if status == "failed" and process.returncode == 1 and fragment["complete"]:
            status, reason = "rows failed", f"{len(fragment['failures'])} rows, see below"
        self.fragments[step.name] = fragment | {"reason": "" if fragment["complete"] else reason}
        write_json(self.fragment(step.name), fragment)
        if last or status != "failed":
            self.note(step.name, status, reason, process.seconds, process.limit)
        return status

    def run_section(self, step: Step) -> None:
        """One section to its end, started again where it crashed."""
        if (reason := self.why_skip(step)) is not None:
            self.skip(step, reason)
            return
        end = time.monotonic() + self.limit(step)
        for attempt in range(RESTARTS + 1):
            before = len(read_fragment(self.fragment(step.name))["rows"])
            process = self.start_section(step, end - time.monotonic()).wait()
            after = read_fragment(self.fragment(step.name))
            # One that wrote nothing and was at no row would only fail the same way again.
            moved = len(after["rows"]) > before or after["running"] is not None or after["failures"]
            last = attempt == RESTARTS or end - time.monotonic() < 2 * LEAST_S or not moved
            if self.finish_section(step, process, last=last) != "failed" or last:
                return
            self.say(f"{step.name}: {process.reason}; starting again behind that row")

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

    def run(self) -> dict[str, Any]:
        """Everything; returns the results."""
        try:
            self.run_section(budget.ENVIRONMENT)
            rows = self.fragments["environment"]["rows"]
            device = rows[0]["device"]["name"] if rows else "unknown"
            self.path = results.claim_path(self.folder, device, time.strftime("%Y-%m-%d", time.gmtime()))
            self.run_checks()
            for step in budget.SECTIONS:
                self.run_section(step)
            return self.save(complete=True)
        except KeyboardInterrupt:
            self.say("ended from outside; writing what there is")
            return self.save(complete=False)
        finally:
            for process in self.running:
                process.stop()
            shutil.rmtree(self.models, ignore_errors=True)
