"""A run of steps, each a process with a time limit: nothing that goes wrong in one is lost, or stops the others."""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.process import ROOT, Process, start
from benchmarks.record import read_fragment, settle, write_json
from benchmarks.saving import SAVE_S, Saver
from benchmarks.section_run import LEAST_S, SectionRun
from benchmarks.step import NOT_ASKED_FOR, Step

# Steps that `only` never leaves out: they say where a run was made, and whether it may time.
ALWAYS = ("environment", "gate", "variants")


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


class Runner(ABC):
    """One run of everything; what it has measured is written anew after every step, and every few seconds.

    Args:
        smoke: with the smallest model and next to no repeats, to see that everything runs.
        folder: for the results.
        work: for logs and fragments.
        only: the steps or sections that are wanted; empty for all.
        total: seconds for everything, of which `reserve` are kept to write the results.
    """

    # Where the sections' modules are.
    sections_package: str

    def __init__(
        self, *, smoke: bool, folder: Path, work: Path, only: tuple[str, ...], total: float, reserve: float
    ) -> None:
        self.smoke, self.folder, self.work, self.only = smoke, folder, work, only
        self.begin = time.monotonic()
        self.deadline = self.begin + total - reserve
        # A folder of the run's own takes its place, as it is large and not worth keeping.
        self.models = work / "models"
        self.out = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
        self.path: Path | None = None
        self.steps: list[dict[str, Any]] = []
        self.fragments: dict[str, dict[str, Any]] = {}
        self.gate: dict[str, Any] = {"open": False, "dtypes": [], "reason": "not reached"}
        self.running: list[Any] = []
        self._saving = threading.Lock()

    @abstractmethod
    def run_steps(self) -> None:
        """All steps, in order."""

    @abstractmethod
    def merge(self, *, complete: bool) -> dict[str, Any]:
        """The results so far."""

    def so_far(self, complete: bool) -> dict[str, Any]:
        """What a run has to merge on any device, rows of the sections under way included.

        Copies: the saver's thread reads them while the run goes on.
        """
        return {
            "smoke": self.smoke,
            "complete": complete,
            "seconds": time.monotonic() - self.begin,
            "steps": list(self.steps),
            "fragments": self._read_fragments(),
            "gate": dict(self.gate),
        }

    def _read_fragments(self) -> dict[str, dict[str, Any]]:
        """What the sections have written down, those under way so far."""
        names = [work.name for work in list(self.running) if isinstance(work, Process)]
        under_way = {
            name: read_fragment(self.fragment(name)) | {"reason": "under way"}
            for name in names
            if self.fragment(name).exists()
        }
        return {**self.fragments, **under_way}

    @abstractmethod
    def render(self, merged: dict[str, Any]) -> str:
        """The results for people."""

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
        if self.only and not {step.name, step.section} & {*self.only, *ALWAYS}:
            return NOT_ASKED_FOR
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
        with self._saving:
            merged = self.merge(complete=complete)
            if self.path is not None:
                results.write(self.path, merged, self._render_safely(merged), self.work, self.out)
            return merged

    def _render_safely(self, merged: dict[str, Any]) -> str:
        """The page, or why there is none: the figures are saved in any case."""
        try:
            return self.render(merged)
        except Exception as error:
            return f"This page could not be made: {type(error).__name__}: {error}\n"

    def command(self, name: str, seconds: float) -> list[str]:
        """A section's process."""
        command = [sys.executable, "-m", "benchmarks.section", name, "--package", self.sections_package]
        command += ["--out", str(self.fragment(name)), "--work", str(self.work), "--models", str(self.models)]
        command += ["--seconds", f"{max(1, seconds - 2):.1f}"]
        if self.gate["open"]:
            command += ["--dtypes", ",".join(self.gate["dtypes"]), "--wrong", json.dumps(self.gate.get("wrong", []))]
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
        """One section to its end, started again where it crashed or hung."""
        if (reason := self.why_skip(step)) is not None:
            self.skip(step, reason)
            return
        work = SectionRun(self, step, self.limit(step), self.row_limit(step))
        while not work.poll():
            time.sleep(0.05)

    def row_limit(self, step: Step) -> float:
        """Seconds that one row of the step may take; 0 for all that the step may."""
        return step.row_limit

    def name_results(self) -> None:
        """Claim the results' file, by the device that the section `environment` has found."""
        rows = self.fragments["environment"]["rows"]
        device = rows[0]["device"]["name"] if rows else "unknown"
        self.path = results.claim_path(self.folder, device, time.strftime("%Y-%m-%d", time.gmtime()))

    def run(self) -> dict[str, Any]:
        """Everything; returns the results."""
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
            for process in list(self.running):
                process.stop()
            shutil.rmtree(self.models, ignore_errors=True)
        return self.save(complete=complete)


def report(run: Runner, merged: dict[str, Any], table: str) -> int:
    """Print the table, what failed and what was found; the exit status: 0 if nothing failed."""
    print(f"\n{table}", flush=True)
    where = run.path.relative_to(ROOT) if run.path and run.path.is_relative_to(ROOT) else run.path
    print(f"results: {where}; logs: {run.work}", flush=True)
    if merged["failed"]:
        print(f"FAILED, {len(merged['failed'])}:", flush=True)
        for line in merged["failed"]:
            print(f"  {line}", flush=True)
    print("everything that could be run ran" if merged["ok"] else "NOT everything went well", flush=True)
    for line in merged.get("verdict", ()):
        print(f"  {line}", flush=True)
    return 0 if merged["ok"] else 1
