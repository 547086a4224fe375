"""A backend in a process of its own: none shares memory, threads or settings, and one that dies dies alone.

`python -m barkfast.bench.worker` reads requests from its standard input and answers each on its standard output, one
JSON object a line; what libraries print goes to standard error. `Remote` is the side that asks.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from barkfast import errors
from barkfast.bench.backends import OURS, Backend, NotInstalled, NotRun, Ours
from barkfast.bench.machine import count_threads, tidy
from barkfast.bench.measure import Limits
from barkfast.bench.roofline import Work
from barkfast.bench.workload import Clip, Workload

COMMAND = (sys.executable, "-m", "barkfast.bench.worker")
# Seconds that one answer may take, and that a process may take to end.
LIMIT_S, GRACE_S = 900.0, 5.0
# Of what a process wrote to its standard error, for people.
TAIL_CHARACTERS = 600


class WorkerError(errors.EngineError):
    """A backend's process has died, hung, or failed at something; says what it last wrote."""


# Errors of these types are raised here as they were there; any other one as a WorkerError.
KNOWN: dict[str, type[Exception]] = {kind.__name__: kind for kind in (NotRun, NotInstalled)} | {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
}


class Remote(Backend):
    """A backend that runs in another process; `check`, `limits`, `share` and `batches` are barkfast's alone.

    Args:
        name: barkfast, or a peer's.
        limit_s: seconds that any answer may take; then the process is ended.
        command: what to start.
    """

    def __init__(
        self, name: str, workload: Workload, *, limit_s: float = LIMIT_S, command: Sequence[str] = COMMAND
    ) -> None:
        super().__init__(workload)
        self.name, self.limit_s = name, limit_s
        self._command = list(command)
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._waiting = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start the process, and make the backend there."""
        self._folder = tempfile.TemporaryDirectory(prefix="barkfast-bench-", ignore_cleanup_errors=True)
        # What it makes on disk is in there, so that nothing is left however it ends.
        folders = os.pathsep.join(folder for folder in sys.path if folder)
        environment = {**os.environ, "PYTHONPATH": folders, "TMPDIR": self._folder.name}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                encoding="utf-8",
                # Ctrl-C reaches only us: we keep what was measured, and then end it.
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        self._ask("open", name=self.name, workload=asdict(self.workload))

    def load(self) -> None:
        """Its imports count from the start of the process on."""
        begin = time.perf_counter()
        self.start()
        started = time.perf_counter() - begin
        start_up, self.version, self.dtype, work = self._ask("load")
        self.start_up = {**start_up, "import_s": started + start_up["import_s"]}
        self.work = {stage: Work(**each) for stage, each in work.items()}

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        return Clip(**self._ask("speak", seed=seed, seconds=seconds))

    def memory(self) -> dict[str, Any]:
        return self._ask("memory")

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        self._ask("trace", path=os.path.abspath(path), seed=seed)

    def check(self) -> list[dict[str, Any]]:
        return self._ask("check")

    def limits(self) -> list[Limits]:
        return [Limits(**limits) for limits in self._ask("limits")]

    def share(self, folder: str) -> str:
        return self._ask("share", folder=folder)

    def batches(self, batches: Sequence[int]) -> list[dict[str, Any]]:
        return self._ask("batches", batches=batches)

    def close(self) -> None:
        """End the process, at once if it is at work, and remove what it left on disk."""
        process, self._process = self._process, None
        if process is not None:
            if self._waiting:
                process.kill()
            # It ends with its input.
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "stderr.log"

    def _listen(self, stream: TextIO) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put("")

    def _ask(self, what: str, **details: Any) -> Any:
        """Send a request and wait for its answer. Raises: the process's own error, WorkerError."""
        if self._process is None or self._process.stdin is None:
            raise NotRun(f"{self.name} is not loaded; call load() first")
        self._waiting = True
        # A process that has ended shows by its answer.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"what": what, **details}) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=self.limit_s)
        except queue.Empty:
            self._process.kill()
            self._process.wait()
            raise WorkerError(f"{what}: ended after {self.limit_s:g} s without an answer; {self._tail()}") from None
        self._waiting = False
        if not line:
            status = self._process.wait()
            raise WorkerError(f"{what}: the process ended with status {status}; {self._tail()}")
        answer = json.loads(line)
        if "error" in answer:
            kind, message = answer["error"]
            raise KNOWN[kind](message) if kind in KNOWN else WorkerError(f"{what}: {kind}: {message}")
        return answer["result"]

    def _tail(self) -> str:
        """The end of what the process wrote for people, on one line."""
        with suppress(OSError):
            text = " ".join(self._log.read_text(encoding="utf-8", errors="replace").split())
            if text:
                return f"it last wrote: {text[-TAIL_CHARACTERS:]}"
        return "it wrote nothing"


class Server:
    """Does what is asked, with one backend."""

    def __init__(self) -> None:
        self.backend: Backend | None = None

    def open(self, name: str, workload: dict[str, Any]) -> None:
        """Make the backend, with as many threads of torch as barkfast's engines use."""
        import torch

        wanted = Workload(**workload)
        if wanted.resolve().device == "cpu":
            torch.set_num_threads(count_threads())
        if name == OURS:
            self.backend = Ours(wanted)
        else:
            from barkfast.bench.peers import PEERS

            self.backend = PEERS[name](wanted)

    def answer(self, what: str, details: dict[str, Any]) -> Any:
        """The result of one request, a method of the backend."""
        if what == "open":
            return self.open(**details)
        backend = self.backend
        if backend is None:
            raise ValueError(f"{what!r} before 'open'")
        result = getattr(backend, what)(**details)
        if what in ("check", "limits", "share", "batches"):
            tidy()
        return (backend.start_up, backend.version, backend.dtype, backend.work) if what == "load" else result


def take_output() -> TextIO:
    """Standard output for the answers alone: whatever else is written to it, by C code too, goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> int:
    """Answer until the input ends."""
    answers, server = take_output(), Server()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": server.answer(request.pop("what"), request)}
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            answer = {"error": [type(error).__name__, " ".join(str(error).split())]}
        print(json.dumps(answer, default=asdict), file=answers, flush=True)
    if server.backend is not None:
        server.backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
