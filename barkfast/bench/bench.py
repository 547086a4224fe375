"""`barkfast bench`: first whether the results are right, then how fast, beside peers and the machine's limits.

Everything that has networks runs in other processes, see worker.py; here is only who does what when.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from barkfast.bench import report
from barkfast.bench.backends import OURS, NotRun, check_peers
from barkfast.bench.machine import require_packages
from barkfast.bench.measure import BATCHES, Limits, check_batches
from barkfast.bench.roofline import check_memory
from barkfast.bench.worker import Remote
from barkfast.bench.workload import STAGES, Clip, Workload, hugging_face_folder, voice_of
from barkfast.errors import BarkfastError, InputError
from barkfast.files import check_writable
from barkfast.runtime.select import half_dtype

REPEATS = 5
# Seconds after which no further round of a peer is begun: so slow ones speak once, and everything ends in minutes.
BUDGET_S = 300.0
# Length of the clip that warms up, where whole ones take long.
WARM_UP_S = 0.5

Say = Callable[[str], None]
# Makes the backend of a name; ours also has the methods of barkfast.bench.backends.Ours.
Make = Callable[[str, Workload], Any]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the check; `result` holds what had been measured."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__("interrupted")
        self.result = result


def check_arguments(compare: Sequence[str], repeats: int, out: Path | None, trace: Path | None) -> None:
    """Everything that can be checked before anything is loaded. Raises: InputError."""
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; expected at least 1 clip")
    check_peers(compare)
    for path in (out, trace):
        if path is not None:
            check_writable(path)


def run_bench(
    workload: Workload,
    *,
    compare: Sequence[str] = (),
    repeats: int = REPEATS,
    out: Path | None = None,
    trace: Path | None = None,
    batches: Sequence[int] = BATCHES,
    say: Say = print,
    budget_s: float = BUDGET_S,
    make: Make = Remote,
) -> dict[str, Any]:
    """Measure a workload.

    What is wrong is not timed: where the check finds anything wrong the result says so, and no more.

    Args:
        compare: names of peers, see barkfast.bench.peers.
        repeats: clips of barkfast; peers speak as many where the budget allows it, else fewer, but at least one.
        out: a file for the result, complete and valid after every clip.
        trace: a file for a Chrome trace of one more clip.
        batches: how many jobs together, to be timed by the step; none for none.
        say: called with a line about what is going on.
        budget_s: seconds after which no further round of a peer is begun.
        make: makes a backend; by default one with a process of its own.

    Returns: the result, as barkfast/bench/schema.json describes it.

    Raises: InputError, EngineError before anything is timed; Interrupted.
    """
    check_arguments(compare, repeats, out, trace)
    check_batches(batches)
    workload = workload.resolve()
    require_packages(workload.device)
    voice_of(workload.open(), workload)
    check_memory(workload)
    run = Run(workload, repeats, out, say, make)
    try:
        if not run.check():
            return run.finish(report.RED)
        try:
            run.measure(list(dict.fromkeys(compare)), trace, budget_s)
            run.time_batches(batches)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(run.finish(report.PARTIAL)) from interrupt
    finally:
        run.close()
    return run.finish(report.COMPLETE if run.whole else report.PARTIAL)


class Run:
    """A result as far as it goes, and the backends that are still there.

    Args:
        ours: barkfast for all but clips; the backends that speak are others, so that each starts anew.
        whole: whether everything of ours that was to be measured was.
    """

    def __init__(self, workload: Workload, repeats: int, out: Path | None, say: Say, make: Make) -> None:
        self.workload, self.repeats, self.out, self.say, self.make = workload, repeats, out, say, make
        self._begin = time.monotonic()
        self.ours = make(OURS, workload)
        self.backends: list[Any] = []
        self.clips: dict[str, list[tuple[int, Clip]]] = {}
        self.limits: dict[str, Limits] = {}
        self.whole = True
        self._shared: Workload | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.result = report.new_result(workload, repeats)

    def check(self) -> bool:
        """Whether the engine computes what it should."""
        self.say(f"checking that the {self.workload.engine} engine computes in {self.workload.dtype} what it should")
        self.ours.start()
        checks = self.ours.check()
        ok = bool(checks) and all(line["ok"] for line in checks)
        self.result["gate"] = {"ok": ok, "checks": [report.describe_check(line) for line in checks]}
        return ok

    def measure(self, compare: Sequence[str], trace: Path | None, budget_s: float) -> None:
        """Limits, backends in turn, a trace."""
        self.save()
        self.say("measuring how fast this machine reads memory and multiplies matrices")
        limits, codec_limits = self.ours.limits()
        self.limits = {stage: codec_limits if stage == "codec" else limits for stage in STAGES}
        self.result["limits"] = report.describe_limits(limits, codec_limits)
        self.save()
        names = (OURS, *compare)
        self.result["contenders"] = [report.new_row(name) for name in names]
        for name in names:
            self._load(name)
        self._speak_in_turn(budget_s)
        ours = next((backend for backend in self.backends if backend.name == OURS), None)
        if trace is not None and ours is not None:
            self.say(f"writing a trace to {trace}")
            self._try("the trace", lambda: ours.trace(trace, self.workload.seed))
        self._close_backends()

    def time_batches(self, batches: Sequence[int]) -> None:
        """Steps of several jobs, once all others are gone."""
        if batches:
            self.say("timing steps of several jobs together")
            self._try("batches", lambda: self.result.update(batch=self.ours.batches(batches)))

    def _try(self, what: str, work: Callable[[], object]) -> None:
        """Keep what was measured before where this fails."""
        try:
            work()
        except Exception as error:
            self.whole = False
            self.say(f"{what}: {_reason(error)}")
        self.save()

    def _peers_workload(self) -> Workload:
        """The workload with a model that all peers can open, and that has the numbers of ours."""
        if self._shared is None and hugging_face_folder(self.workload.open()) is not None:
            self._shared = self.workload
        elif self._shared is None:
            self.say("writing the weights into a folder for the peers")
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="barkfast-bench-")
            place = self.ours.share(str(Path(self._folder.name) / "model"))
            self._shared = replace(self.workload, model=place, small=False)
        return self._shared

    def _load(self, name: str) -> None:
        """Load a backend and warm it up; the row of one that cannot be timed says why."""
        row = self._row_of(name)
        try:
            if name == OURS:
                workload = self.workload
            else:
                half = "float32" if name == "bark" else half_dtype(self.workload.device)
                # The same networks in plain torch.
                check_memory(replace(self.workload, engine="torch", dtype=half), name)
                workload = self._peers_workload()
            backend = self.make(name, workload)
            self.say(f"loading {name}")
            # Whatever happens from here on, it is closed.
            self.backends.append(backend)
            backend.load()
            row |= {"version": backend.version, "dtype": backend.dtype, "start_up": backend.start_up}
            # Elsewhere the first clip compiles kernels for every length that comes up in it.
            short = None if self.workload.device.startswith("cuda") else min(WARM_UP_S, self.workload.seconds)
            backend.speak(self.workload.seed, short)
            row |= {"status": report.OK, "reason": ""}
        except (NotRun, InputError) as error:
            self._drop(name, report.NOT_RUN, error)
        except Exception as error:
            self._drop(name, report.FAILED, error)
        self.save()

    def _row_of(self, name: str) -> dict[str, Any]:
        return next(row for row in self.result["contenders"] if row["name"] == name)

    def _drop(self, name: str, status: str, error: Exception) -> None:
        """Write down why a backend is not timed any further, and close it."""
        reason = _reason(error)
        self.say(f"{name}: {status}: {reason}")
        self._row_of(name).update(status=status, reason=reason)
        self.whole = self.whole and name != OURS
        self._close_backends(name)

    def _speak_in_turn(self, budget_s: float) -> None:
        """Rounds with a clip of each backend, but for peers that would not be done within the budget."""
        begin = time.monotonic()
        took: dict[str, float] = {}
        for i in range(self.repeats):
            for backend in list(self.backends):
                start = time.monotonic()
                if i and backend.name != OURS and start - begin + took[backend.name] > budget_s:
                    continue
                try:
                    self._speak(backend, i)
                except Exception as error:
                    self._drop(backend.name, report.FAILED, error)
                took[backend.name] = time.monotonic() - start
                self.save()

    def _speak(self, backend: Any, i: int) -> None:
        seed = self.workload.seed + i
        clip = backend.speak(seed)
        self.say(f"clip {i + 1} of {self.repeats}: {backend.name}, real-time factor {clip.real_time_factor:.3g}")
        clips = self.clips.setdefault(backend.name, [])
        clips.append((seed, clip))
        row = self._row_of(backend.name)
        row.update(report.describe_clips(clips, backend.work, self.limits), memory=backend.memory())

    def _close_backends(self, name: str | None = None) -> None:
        """One of them, or all."""
        for backend in [one for one in self.backends if name in (None, one.name)]:
            self.backends.remove(backend)
            backend.close()

    def close(self) -> None:
        """End everything that is still there, and remove what was written for the peers."""
        self._close_backends()
        self.ours.close()
        if self._folder is not None:
            self._folder.cleanup()

    def finish(self, status: str) -> dict[str, Any]:
        """Give the result its status, write it, and return it."""
        self.result["status"] = status
        self.save()
        return self.result

    def save(self) -> None:
        """Write the result as it is now."""
        self.result["seconds"] = time.monotonic() - self._begin
        if self.out is not None:
            report.write_result(self.result, self.out)


def _reason(error: Exception) -> str:
    """One line; of what was raised on purpose the message alone."""
    text = str(error) if isinstance(error, NotRun | BarkfastError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
