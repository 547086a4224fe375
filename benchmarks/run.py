"""One call on a GPU: every step of its budget, in order, whatever goes wrong on the way."""

import time
from pathlib import Path
from typing import Any

from benchmarks import probe, results, table, verdict
from benchmarks.budget import RESERVE, Budget, limit_of
from benchmarks.gate import read_gate
from benchmarks.gpu_tests import SETS, TestFile, TestRun
from benchmarks.idle import wait_until_idle
from benchmarks.process import Process, start
from benchmarks.record import read_fragment
from benchmarks.runner import Runner
from benchmarks.sanitizer import ENV, find_tool, read_log, wrap
from benchmarks.section_run import SectionRun
from benchmarks.step import Step

# In a smoke test limits are longer by this, as the interpreter is slow, and of the compilations one is run.
SMOKE_SCALE = 4
SMOKE_COMPILES = ("compile bfloat16 0",)
# Processes beside one another must not each wait with as many threads as there are cores.
BESIDE = {"OMP_NUM_THREADS": "2"}
SMOKE_TESTS = "def test_passes():\n    pass\n"
NO_DEVICE = "needs a CUDA device"
# Seconds until the processes before have left the device.
IDLE_S = 10.0

Work = Process | TestRun | SectionRun


class Unusable(Exception):
    """This interpreter cannot run the call; the message says what it lacks."""


class Run(Runner):
    """One call; smoke: on the CPU, in Triton's interpreter.

    Args:
        budget: its steps.
        prebuilt: the probe as a program, for where there is no nvcc.
    """

    sections_package = "benchmarks.sections"

    def __init__(self, *, budget: Budget, prebuilt: Path | None = None, **options: Any) -> None:
        super().__init__(reserve=RESERVE, **options)
        self.budget, self.prebuilt = budget, prebuilt
        self.scale = SMOKE_SCALE if self.smoke else 1
        # Of the groups behind the present one, in seconds.
        self.later = 0
        self.tests: dict[str, Any] | None = None
        self.sanitizer: dict[str, Any] | None = None
        self.notes: list[str] = []

    def merge(self, *, complete: bool) -> dict[str, Any]:
        running = next((work for work in list(self.running) if isinstance(work, TestRun)), None)
        merged = results.merge(
            **self.so_far(complete),
            call=self.budget.name,
            notes=list(self.notes),
            tests=self.tests or (running.report() if running else None),
            sanitizer=self.sanitizer,
        )
        return merged | {"verdict": verdict.describe(merged)}

    def render(self, merged: dict[str, Any]) -> str:
        return table.render(merged)

    def log(self, name: str) -> Path:
        return self.work / probe.LINES if name == "probe" else super().log(name)

    def limit(self, step: Step) -> float:
        left = self.deadline - time.monotonic()
        spare = max(0.0, left - self.later - step.limit) if step.stretch else 0.0
        return min(step.limit * self.scale + min(spare, step.stretch), left)

    def row_limit(self, step: Step) -> float:
        return step.row_limit * self.scale

    def run_steps(self) -> None:
        groups = self.budget.groups
        for i, group in enumerate(groups):
            self.later = sum(limit_of(behind) for behind in groups[i + 1 :])
            if self.smoke and not limit_of(group):
                self.skip(group[0], "a smoke test has no time to spare")
            elif len(group) == 1 and group[0].kind == "section" and group[0] is not groups[0][0]:
                self.run_section(group[0])
            else:
                self.run_beside(group)
            if i == 0:
                self.require_usable()
                self.name_results()
                self.save(complete=False)

    def require_usable(self) -> None:
        """Errors: Unusable, by what the section `environment` found."""
        failures = self.fragments["environment"]["failures"]
        lack = next((failure["reason"] for failure in failures if failure["row"] == "usable"), None)
        if lack is not None:
            raise Unusable(lack)

    def run_section(self, step: Step) -> None:
        if not self.smoke and self.why_skip(step) is None:
            note = wait_until_idle(1.0 if self.notes else IDLE_S)
            self.notes += [f"{step.name}: {note}"] if note else []
        super().run_section(step)

    def run_beside(self, group: tuple[Step, ...]) -> None:
        """The steps of a group beside one another, two at a time in a smoke test; then the gate's answer."""
        at_a_time = 2 if self.smoke else len(group)
        waiting = [step for step in group if not self.smoke or self._in_smoke(step)]
        active: list[tuple[Step, Work]] = []
        while waiting or active:
            while waiting and len(active) < at_a_time:
                step = waiting.pop(0)
                if (started := self.start(step)) is not None:
                    active.append((step, started))
            for step, work in [pair for pair in active if pair[1].poll()]:
                active.remove((step, work))
                self.finish(step, work)
            time.sleep(0.05)
        if "gate" in self.fragments:
            kernels = [fragment for name, fragment in self.fragments.items() if name.startswith("variants")]
            self.gate = read_gate(self.fragments["gate"], *kernels)

    def _in_smoke(self, step: Step) -> bool:
        return step.section != "compile" or step.name in SMOKE_COMPILES

    def start(self, step: Step) -> Work | None:
        """None if it is not to be run."""
        reason = self.why_skip(step)
        if step.kind == "section":
            if reason is not None:
                self.skip(step, reason)
                return None
            return SectionRun(self, step, self.limit(step), self.row_limit(step), BESIDE)
        prepare = {"tests": self._tests, "sanitizer": self._sanitizer, "build": self._build, "probe": self._probe}
        work = reason if reason is not None else prepare[step.kind](step)
        if isinstance(work, str):
            self.skip(step, work, section=False)
            if step.kind == "sanitizer":
                self.sanitizer = {"status": "not run", "errors": None, "reason": work}
            return None
        self.running.append(work)
        return work

    def _tests(self, step: Step) -> TestRun | str:
        """Tests on their way, or why there are none; so do the next three."""
        files = self._smoke_tests() if self.smoke else [file for file in SETS[self.budget.tests]() if file.exists()]
        return TestRun(files, self.work, self.limit(step)) if files else "there are no tests"

    def _sanitizer(self, step: Step) -> Process | str:
        tool = None if self.smoke else find_tool()
        if tool is None:
            return NO_DEVICE if self.smoke else "compute-sanitizer is not installed"
        limit = self.limit(step)
        return start(step.name, wrap(tool, self.command("sanitize", limit)), self.log(step.name), limit, ENV)

    def _build(self, step: Step) -> Process | str:
        compiler = probe.find_compiler()
        if compiler is None:
            return "nvcc is not installed"
        command = probe.build_command(compiler, self.work / probe.PROGRAM)
        return start(step.name, command, self.log(step.name), self.limit(step))

    def _probe(self, step: Step) -> Process | str:
        if self.smoke:
            return NO_DEVICE
        program = next((p for p in (self.work / probe.PROGRAM, self.prebuilt) if p and p.is_file()), None)
        if program is None:
            return "there is no nvcc that builds it, and BARKFAST_PROBE names no program"
        return start(step.name, [str(program)], self.log(step.name), self.limit(step))

    def _smoke_tests(self) -> list[TestFile]:
        path = self.work / "test_smoke.py"
        path.write_text(SMOKE_TESTS, encoding="utf-8")
        return [TestFile(path)]

    def finish(self, step: Step, work: Work) -> None:
        """Take what a step found; sections have been taken already."""
        if isinstance(work, SectionRun):
            return
        if isinstance(work, TestRun):
            self.tests = work.report()
            self.running.remove(work)
            count = len(self.tests["failures"])
            left = [name for name, how in self.tests["files"].items() if how.startswith("not run")]
            reason = f"{self.tests['passed']} passed, {count} failed, {self.tests['skipped']} skipped"
            reason += f", not run: {', '.join(left)}" if left else ""
            status = "rows failed" if count else "timeout" if left else "ok"
            self.note(step.name, status, reason, work.seconds, step.limit)
            return
        self.running.remove(work)
        status, reason = work.status, work.reason
        if step.kind == "sanitizer":
            rows = len(read_fragment(self.fragment("sanitize"))["rows"])
            self.sanitizer = read_log(self.log(step.name), rows, work.status, work.reason)
            status = {"clean": "ok", "not run": "not run"}.get(self.sanitizer["status"], "rows failed")
            reason = self.sanitizer["reason"]
        elif step.kind == "probe":
            self.fragments["probe"] = probe.read_fragment(self.log(step.name), reason if status != "ok" else "")
        self.note(step.name, status, reason, work.seconds, work.limit)
