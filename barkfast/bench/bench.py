"""`barkfast bench`: first that the results are right, then how fast they come, beside peers and this machine's best."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from barkfast.bench import check
from barkfast.bench.backends import OURS, Backend, NotRun
from barkfast.bench.machine import tidy
from barkfast.bench.measure import BATCHES, Limits, check_batches, measure_limits, time_batches
from barkfast.bench.peers import find_peers, hugging_face_folder
from barkfast.bench.result import (
    COMPLETE,
    FAILED,
    NOT_RUN,
    OK,
    PARTIAL,
    RED,
    describe_check,
    describe_clips,
    describe_limits,
    new_result,
    new_row,
    write_result,
)
from barkfast.bench.roofline import check_memory
from barkfast.bench.worker import Remote
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, STAGES, Clip, Workload, tokenizer_of, voice_of
from barkfast.errors import BarkfastError, InputError
from barkfast.files import check_writable
from barkfast.runtime.select import half_dtype
from barkfast.weights.convert import convert

REPEATS = 5
# Seconds after which no further round of a peer is begun: so slow ones speak once, and everything ends in minutes.
BUDGET_S = 300.0
# Length of the clip that warms up, where whole ones take long.
WARM_UP_S = 0.5
# Seconds for the limit of the codec's dtype, where it is not that of the networks.
CODEC_LIMIT_S = 2.0

Say = Callable[[str], None]
Make = Callable[[str, Workload], Backend]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the gate was passed; `result` holds what had been measured."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__("interrupted")
        self.result = result


def check_arguments(compare: Sequence[str], repeats: int, out: Path | None, trace: Path | None) -> None:
    """Everything that can be checked before anything is loaded. Errors: InputError."""
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; expected at least 1 clip")
    find_peers(list(compare))
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

    What is wrong is not timed: where the gate finds anything wrong the result says so, and no more.

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
    Errors: InputError, EngineError before anything is timed; Interrupted.
    """
    check_arguments(compare, repeats, out, trace)
    check_batches(batches)
    workload = workload.resolve()
    voice_of(workload.open(), workload)
    check_memory(workload)
    run = Run(workload, repeats, out, say)
    say(f"checking that the {workload.engine} engine computes in {workload.dtype} what it should")
    checks = check.check(workload)
    run.result["gate"] = {"ok": check.gate_ok(checks), "checks": [describe_check(asdict(one)) for one in checks]}
    if not run.result["gate"]["ok"]:
        return run.finish(RED)
    try:
        run.measure(list(dict.fromkeys(compare)), trace, budget_s, make)
        run.time_batches(batches)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(run.finish(PARTIAL)) from interrupt
    finally:
        run.close()
    return run.finish(COMPLETE if run.whole else PARTIAL)


class Run:
    """A result as far as it goes, and the backends that are still speaking.

    Args:
        whole: whether everything of ours that was to be measured was.
    """

    def __init__(self, workload: Workload, repeats: int, out: Path | None, say: Say) -> None:
        self.workload, self.repeats, self.out, self.say = workload, repeats, out, say
        self._begin = time.monotonic()
        self.backends: list[Backend] = []
        self.clips: dict[str, list[tuple[int, Clip]]] = {}
        self.limits: dict[str, Limits] = {}
        self.whole = True
        self._shared: Workload | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.result = new_result(workload, repeats)

    def measure(self, compare: Sequence[str], trace: Path | None, budget_s: float, make: Make) -> None:
        """Limits, backends in turn, a trace."""
        tidy()
        self.save()
        self.say("measuring how fast this machine reads memory and multiplies matrices")
        self._measure_limits()
        names = (OURS, *compare)
        self.result["contenders"] = [new_row(name) for name in names]
        for name in names:
            self._load(name, make)
        self._speak_in_turn(budget_s)
        if trace is not None:
            self._try("the trace", lambda: self._trace(trace))
        self.close()

    def time_batches(self, batches: Sequence[int]) -> None:
        """Steps of several jobs, once all others are gone."""
        if not batches:
            return
        self.say("timing steps of several jobs together")

        def work() -> None:
            self.result["batch"] = time_batches(self.workload, batches)

        self._try("batches", work)

    def _measure_limits(self) -> None:
        device, dtype = self.workload.device, self.workload.dtype
        limits = codec_limits = measure_limits(device, dtype)
        codec = "float16" if self.workload.engine == "cuda" and dtype != "float32" else "float32"
        if codec != dtype:
            codec_limits = measure_limits(device, codec, seconds=CODEC_LIMIT_S)
        self.limits = {stage: codec_limits if stage == "codec" else limits for stage in STAGES}
        self.result["limits"] = describe_limits(limits, codec_limits)
        self.save()

    def _trace(self, path: Path) -> None:
        for backend in self.backends:
            if backend.name == OURS:
                self.say(f"writing a trace to {path}")
                backend.trace(path, self.workload.seed)

    def _try(self, what: str, work: Callable[[], None]) -> None:
        """What comes last must not take with it what is there."""
        try:
            work()
        except Exception as error:
            self.whole = False
            self.say(f"{what}: {_reason(error)}")
        self.save()

    def _peers_workload(self) -> Workload:
        """The workload with a model that all peers open, and from which they load the same numbers as we do."""
        if self._shared is None:
            checkpoint = self.workload.open()
            if hugging_face_folder(checkpoint) is not None:
                self._shared = self.workload
                return self.workload
            self.say("writing the weights down for the peers")
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="barkfast-bench-")
            place = convert(
                self.workload.model,
                Path(self._folder.name) / "model",
                "float32",
                voices=self.workload.voice not in (NO_VOICE, FULL_VOICE),
                small=self.workload.small,
                tokenizer=tokenizer_of(checkpoint) is None,
            )
            self._shared = replace(self.workload, model=str(place), small=False)
        return self._shared

    def _load(self, name: str, make: Make) -> None:
        """Load one and let it warm up; one that cannot take part says why in the result."""
        row = self._row_of(name)
        try:
            if name != OURS:
                check_memory(_as_peer(self.workload, name), name)
            backend = make(name, self.workload if name == OURS else self._peers_workload())
            self.say(f"loading {name}")
            # Whatever happens from here on, it is closed.
            self.backends.append(backend)
            backend.load()
            row |= {"version": backend.version, "dtype": backend.dtype, "start_up": backend.start_up}
            # Elsewhere the first clip compiles kernels for every length that comes up in it.
            short = None if self.workload.device.startswith("cuda") else min(WARM_UP_S, self.workload.seconds)
            backend.speak(self.workload.seed, short)
            row |= {"status": OK, "reason": ""}
        except (NotRun, InputError) as error:
            self._drop(name, NOT_RUN, error)
        except Exception as error:
            self._drop(name, FAILED, error)
        self.save()

    def _row_of(self, name: str) -> dict[str, Any]:
        return next(row for row in self.result["contenders"] if row["name"] == name)

    def _drop(self, name: str, status: str, error: Exception) -> None:
        """Write down why one takes no further part."""
        reason = _reason(error)
        self.say(f"{name}: {status}: {reason}")
        self._row_of(name).update(status=status, reason=reason)
        self.whole = self.whole and name != OURS
        for backend in [one for one in self.backends if one.name == name]:
            backend.close()
            self.backends.remove(backend)

    def _speak_in_turn(self, budget_s: float) -> None:
        """Rounds, each backend once in each; a peer sits out where it would not be done within the budget."""
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
                    self._drop(backend.name, FAILED, error)
                took[backend.name] = time.monotonic() - start
                self.save()

    def _speak(self, backend: Backend, i: int) -> None:
        seed = self.workload.seed + i
        clip = backend.speak(seed)
        self.say(f"clip {i + 1} of {self.repeats}: {backend.name}, real-time factor {clip.real_time_factor:.3g}")
        spoken = self.clips.setdefault(backend.name, [])
        spoken.append((seed, clip))
        self._row_of(backend.name).update(describe_clips(spoken, backend.work, self.limits))
        self._row_of(backend.name)["memory"] = backend.memory()

    def close(self) -> None:
        """End all backends that are still there, and remove what was written for them."""
        while self.backends:
            self.backends.pop().close()
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = self._shared = None

    def finish(self, status: str) -> dict[str, Any]:
        """Give the result its status, write it, and return it."""
        self.result["status"] = status
        self.save()
        return self.result

    def save(self) -> None:
        """Write the result as it is now."""
        self.result["seconds"] = time.monotonic() - self._begin
        if self.out is not None:
            write_result(self.result, self.out)


def _reason(error: Exception) -> str:
    """One line; of what was raised on purpose the message alone."""
    text = str(error) if isinstance(error, NotRun | BarkfastError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _as_peer(workload: Workload, name: str) -> Workload:
    """What a peer needs memory for: the same networks in plain torch."""
    return replace(workload, engine="torch", dtype="float32" if name == "bark" else half_dtype(workload.device))
