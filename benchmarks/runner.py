"""A run of steps, each a process with a time limit: nothing that goes wrong in one is lost, or stops the others."""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import pages, probe, results, verdict
from benchmarks.budget import NOT_ASKED_FOR, Budget, Step, limit_of
from benchmarks.gate import read_gate
from benchmarks.gpu_tests import SETS, TestFile, TestRun
from benchmarks.idle import wait_until_idle
from benchmarks.process import ROOT, Process, start
from benchmarks.record import read_fragment, settle, write_json
from benchmarks.sanitizer import ENV, find_tool, read_log, wrap
from benchmarks.saving import SAVE_S, Saver
from benchmarks.section_run import LEAST_S, SectionRun

# Steps that `only` never leaves out: they say where a run was made, and whether it may time.
ALWAYS = ("environment", "gate", "variants")
# In a smoke test of a GPU's steps limits are longer by this, as the interpreter is slow; one compilation is run.
SMOKE_SCALE = 4
SMOKE_COMPILES = ("compile bfloat16 0",)
SMOKE_TESTS = "def test_passes():\n    pass\n"
# Processes beside one another must not each wait with as many threads as there are cores.
BESIDE = {"OMP_NUM_THREADS": "2"}
NO_DEVICE = "needs a CUDA device"
# Seconds until the processes before have left the device.
IDLE_S = 10.0

Work = Process | TestRun | SectionRun


class Unusable(Exception):
    """This interpreter cannot run the steps; the message says what it lacks."""


def prepare_environment() -> None:
    """What all processes see: the sources in place, no settings of the user's, no network."""
    for name in [name for name in os.environ if name.startswith(("BARKFAST_", "SUNO_"))]:
        del os.environ[name]
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    os.environ.update(
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        PIP_NO_INDEX="1",
        PIP_RETRIES="0",
        TOKENIZERS_PARALLELISM="false",
        PYTHONUNBUFFERED="1",
        PYTHONFAULTHANDLER="1",
    )


class Run:
    """One run of a budget's steps; what it has measured is written anew after every step, and every few seconds.

    Args:
        smoke: with the smallest model and next to no repeats, to see that everything runs; what is for a GPU runs on
            the CPU, in Triton's interpreter.
        folder: for the results.
        work: for logs and fragments.
        only: the steps or sections that are wanted; empty for all.
        total: seconds for everything, instead of the budget's own.
        prebuilt: the probe as a program, for where there is no nvcc.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        smoke: bool,
        folder: Path,
        work: Path,
        only: tuple[str, ...] = (),
        total: float | None = None,
        prebuilt: Path | None = None,
    ) -> None:
        self.budget, self.smoke, self.folder, self.work, self.only = budget, smoke, folder, work, only
        self.prebuilt = prebuilt
        self.begin = time.monotonic()
        self.deadline = self.begin + (total or budget.total) - budget.reserve
        # A folder of the run's own takes its place, as it is large and not worth keeping.
        self.models = work / "models"
        self.out = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
        self.path: Path | None = None
        self.scale = SMOKE_SCALE if smoke and not budget.threads else 1
        # Of the groups behind the present one, in seconds.
        self.later = 0
        self.steps: list[dict[str, Any]] = []
        self.fragments: dict[str, dict[str, Any]] = {}
        self.gate: dict[str, Any] = {"open": False, "dtypes": [], "reason": "not reached"}
        self.running: list[Work] = []
        self.tests: dict[str, Any] | None = None
        self.sanitizer: dict[str, Any] | None = None
        self.notes: list[str] = []
        self._saving = threading.Lock()

    # --- what there is so far

    def merge(self, *, complete: bool) -> dict[str, Any]:
        """The results so far, rows of the sections under way included.

        Of copies: the saver's thread reads them while the run goes on.
        """
        running = next((work for work in list(self.running) if isinstance(work, TestRun)), None)
        merged = results.merge(
            budget=self.budget,
            smoke=self.smoke,
            complete=complete,
            seconds=time.monotonic() - self.begin,
            steps=list(self.steps),
            fragments=self._read_fragments(),
            gate=dict(self.gate),
            notes=list(self.notes),
            tests=self.tests or (running.report() if running else None),
            sanitizer=self.sanitizer,
        )
        return merged | ({} if self.budget.threads else {"verdict": verdict.describe(merged)})

    def _read_fragments(self) -> dict[str, dict[str, Any]]:
        """What the sections have written down, those under way so far."""
        names = [work.name for work in list(self.running) if isinstance(work, Process)]
        under_way = {
            name: read_fragment(self.fragment(name)) | {"reason": "under way"}
            for name in names
            if self.fragment(name).exists()
        }
        return {**self.fragments, **under_way}

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begin:4.0f} s] {text}", flush=True)

    def log(self, name: str) -> Path:
        return self.work / f"{name.replace(' ', '-')}.log"

    def fragment(self, name: str) -> Path:
        return self.work / f"{name.replace(' ', '-')}.json"

    def skip(self, step: Step, reason: str) -> None:
        """Write down that a step was not run."""
        self.note(step.name, "not run", reason, 0.0, 0.0)
        if step.kind == "section":
            failure = {"row": step.name, "status": "not run", "reason": reason}
            self.fragments[step.name] = {"rows": [], "failures": [failure], "complete": False, "reason": reason}
        elif step.kind == "sanitizer":
            self.sanitizer = {"status": "not run", "errors": None, "reason": reason}

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
        with self._saving:
            merged = self.merge(complete=complete)
            if self.path is not None:
                results.write(self.path, merged, render_safely(merged), self.work, self.out)
            return merged

    def name_results(self) -> None:
        """Claim the results' file, by the device that the section `environment` has found."""
        rows = self.fragments["environment"]["rows"]
        device = rows[0]["device"]["name"] if rows else "unknown"
        self.path = results.claim_path(self.folder, device, time.strftime("%Y-%m-%d", time.gmtime()))

    # --- the steps

    def run(self) -> dict[str, Any]:
        """Everything; returns the results. Raises: Unusable."""
        self.models = Path(tempfile.mkdtemp(prefix="benchmark-models-"))
        saver = Saver(lambda: self.save(complete=False), SAVE_S)
        complete = False
        try:
            self.run_steps()
            complete = True
        except KeyboardInterrupt:
            self.say("ended from outside; writing what there is")
            self.save(complete=False)
        finally:
            saver.close()
            for work in list(self.running):
                work.stop()
            shutil.rmtree(self.models, ignore_errors=True)
        return self.save(complete=complete)

    def run_steps(self) -> None:
        groups = self.budget.groups
        for i, group in enumerate(groups):
            self.later = sum(limit_of(behind) for behind in groups[i + 1 :])
            if self.smoke and not limit_of(group):
                self.skip(group[0], "a smoke test has no time to spare")
            elif i and len(group) == 1 and group[0].kind == "section":
                self.run_section(group[0])
            else:
                self.run_beside(group)
            if i == 0:
                self.require_usable()
                self.name_results()
                self.save(complete=False)
            if any(step.name == "gate" for step in group):
                kernels = [fragment for name, fragment in self.fragments.items() if name.startswith("variants")]
                self.gate = read_gate(self.fragments["gate"], *kernels)

    def require_usable(self) -> None:
        failures = self.fragments["environment"]["failures"]
        lack = next((failure["reason"] for failure in failures if failure["row"] == "usable"), None)
        if lack is not None:
            raise Unusable(lack)

    def limit(self, step: Step) -> float:
        """Seconds the step may take, by what is left of everything."""
        left = self.deadline - time.monotonic()
        spare = max(0.0, left - self.later - step.limit) if step.stretch else 0.0
        return min(step.limit * self.scale + min(spare, step.stretch), left)

    def why_skip(self, step: Step) -> str | None:
        """Why a step is not to be begun, if it is not."""
        if step.left_out:
            return step.left_out
        if self.only and not {step.name, step.section} & {*self.only, *ALWAYS}:
            return NOT_ASKED_FOR
        if step.timed and not self.gate["open"]:
            return "the correctness gate is red"
        if self.limit(step) < LEAST_S:
            return "the time for everything was spent"
        return None

    def run_section(self, step: Step) -> None:
        """One section to its end, alone, started again where it crashed or hung."""
        if (reason := self.why_skip(step)) is not None:
            self.skip(step, reason)
            return
        if not self.smoke and not self.budget.threads:
            note = wait_until_idle(1.0 if self.notes else IDLE_S)
            self.notes += [f"{step.name}: {note}"] if note else []
        work = SectionRun(self, step, self.limit(step), step.row_limit * self.scale)
        while not work.poll():
            time.sleep(0.05)

    def run_beside(self, group: tuple[Step, ...]) -> None:
        """The steps of a group beside one another, two at a time in a smoke test."""
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

    def _in_smoke(self, step: Step) -> bool:
        return step.section != "compile" or step.name in SMOKE_COMPILES

    def start(self, step: Step) -> Work | None:
        """None if it is not to be run."""
        prepare = {"tests": self._tests, "sanitizer": self._sanitizer, "build": self._build, "probe": self._probe}
        reason = self.why_skip(step)
        if reason is None and step.kind == "section":
            return SectionRun(self, step, self.limit(step), step.row_limit * self.scale, BESIDE)
        work = reason if reason is not None else prepare[step.kind](step)
        if isinstance(work, str):
            self.skip(step, work)
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

    def command(self, name: str, seconds: float, threads: int = 0) -> list[str]:
        plan = {
            "smoke": self.smoke,
            "models": str(self.models),
            "work": str(self.work),
            "deadline": time.monotonic() + max(1, seconds - 2),
            "dtypes": self.gate["dtypes"],
            "threads": threads,
            "wrong": self.gate.get("wrong", []),
        }
        return [sys.executable, "-m", "benchmarks.section", name, str(self.fragment(name)), json.dumps(plan)]

    def start_section(self, step: Step, limit: float, env: dict[str, str] | None = None) -> Process:
        """Start a section's process, with the step's threads."""
        command, settings = self.command(step.name, limit, step.threads), dict(env or {})
        if step.threads:
            count = str(step.threads)
            # The engine's own pool and torch's are as large as each other, and neither larger than is said. Packed
            # weights are kept with the models, and go with them.
            settings |= {name: count for name in ("BARKFAST_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
            settings["BARKFAST_CACHE"] = str(self.models / "cache")
        process = start(step.name, command, self.log(step.name), limit, settings)
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

    def finish(self, step: Step, work: Work) -> None:
        """Take what a step found; sections have been taken already."""
        if isinstance(work, SectionRun):
            return
        self.running.remove(work)
        if isinstance(work, TestRun):
            self.tests = work.report()
            count = len(self.tests["failures"])
            left = [name for name, how in self.tests["files"].items() if how.startswith("not run")]
            reason = f"{self.tests['passed']} passed, {count} failed, {self.tests['skipped']} skipped"
            reason += f", not run: {', '.join(left)}" if left else ""
            status = "rows failed" if count else "timeout" if left else "ok"
            self.note(step.name, status, reason, work.seconds, step.limit)
            return
        status, reason = work.status, work.reason
        if step.kind == "sanitizer":
            rows = len(read_fragment(self.fragment("sanitize"))["rows"])
            self.sanitizer = read_log(self.log(step.name), rows, work.status, work.reason)
            status = {"clean": "ok", "not run": "not run"}.get(self.sanitizer["status"], "rows failed")
            reason = self.sanitizer["reason"]
        elif step.kind == "probe":
            self.fragments["probe"] = probe.read_fragment(self.log(step.name), reason if status != "ok" else "")
        self.note(step.name, status, reason, work.seconds, work.limit)


def render_safely(merged: dict[str, Any]) -> str:
    """The page, or why there is none: the figures are saved in any case."""
    try:
        return pages.render(merged)
    except Exception as error:
        return f"This page could not be made: {type(error).__name__}: {error}\n"
