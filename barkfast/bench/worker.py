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
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from barkfast import errors
from barkfast.bench.backends import OURS, Backend, NotInstalled, NotRun, Ours, use_threads
from barkfast.bench.machine import restart_peaks
from barkfast.bench.roofline import Work
from barkfast.bench.workload import Clip, Workload

COMMAND = (sys.executable, "-m", "barkfast.bench.worker")
# Seconds that one answer may take, and that a process may take to end.
LIMIT_S, GRACE_S = 900.0, 5.0
# Of what a process wrote to its standard error, for people.
TAIL_CHARACTERS = 600


class WorkerError(Exception):
    """A contender's process has died, hung, or failed at something; says what it last wrote."""


# What may cross from one process to the other as what it is; everything else arrives as a WorkerError.
KNOWN: dict[str, type[Exception]] = {kind.__name__: kind for kind in (NotRun, NotInstalled)} | {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
}


class Remote(Backend):
    """A backend whose work another process does.

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

    def import_library(self) -> None:
        """From the start of the process on."""
        self._start()
        self._ask("open", name=self.name, workload=asdict(self.workload))
        self.version = self._ask("import")

    def prepare(self) -> None:
        self._ask("prepare")

    def load_networks(self) -> None:
        self.dtype = self._ask("load")

    def settle(self) -> None:
        self.work = {stage: Work(**work) for stage, work in self._ask("settle").items()}

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        return Clip(**self._ask("speak", seed=seed, seconds=seconds))

    def memory(self) -> dict[str, Any]:
        return self._ask("memory")

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        self._ask("trace", path=os.path.abspath(path), seed=seed)

    def close(self) -> None:
        """End the process, at once if it is at work; what it left on disk goes with it."""
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

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="barkfast-bench-", ignore_cleanup_errors=True)
        # In there it makes what it needs on disk, so that nothing is left however it ends.
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
                # Ctrl-C is for us alone: we keep what was measured, and then end it.
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    @property
    def _log(self) -> Path:
        if self._folder is None:
            raise NotRun(f"{self.name} is not loaded; call load() first")
        return Path(self._folder.name) / "stderr.log"

    def _listen(self, stream: TextIO) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put("")

    def _ask(self, what: str, **details: Any) -> Any:
        """Send a request and wait for its answer. Errors: the process's own, WorkerError."""
        if self._process is None or self._process.stdin is None:
            raise NotRun(f"{self.name} is not loaded; call load() first")
        self._waiting = True
        # One that has ended is found out by its answer.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"what": what, **details}) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=self.limit_s)
        except queue.Empty:
            self._process.kill()
            self._process.wait()
            raise WorkerError(f"{what}: ended after {self.limit_s:g} s without an answer; {self._tail()}") from None
        if not line:
            status = self._process.wait()
            self._waiting = False
            raise WorkerError(f"{what}: the process ended with status {status}; {self._tail()}")
        self._waiting = False
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
        """Make the backend."""
        from barkfast.bench.peers import find_peers

        wanted = Workload(**workload)
        use_threads(wanted)
        self.backend = Ours(wanted) if name == OURS else find_peers([name])[0](wanted)

    def answer(self, what: str, details: dict[str, Any]) -> Any:
        """The result of one request."""
        if what == "open":
            self.open(**details)
            return None
        backend = self.backend
        if backend is None:
            raise ValueError(f"{what!r} before 'open'")
        if what == "import":
            backend.import_library()
            return backend.version
        if what == "load":
            backend.load_networks()
            return backend.dtype
        if what == "settle":
            backend.settle()
            restart_peaks()
            return {stage: asdict(work) for stage, work in backend.work.items()}
        if what == "speak":
            return asdict(backend.speak(**details))
        if what == "memory":
            return backend.memory()
        if what not in ("prepare", "trace"):
            raise ValueError(f"unknown request {what!r}")
        getattr(backend, what)(**details)
        return None


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
        print(json.dumps(answer), file=answers, flush=True)
    if server.backend is not None:
        server.backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
