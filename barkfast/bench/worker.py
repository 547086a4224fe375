"""A backend in a process of its own: none shares memory, threads or settings, and one that dies dies alone."""

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from barkfast.bench.backends import OURS, Backend, NotRun, Ours
from barkfast.bench.machine import count_threads, tidy
from barkfast.bench.measure import Limits
from barkfast.bench.workload import Clip, Workload
from barkfast.errors import BarkfastError, EngineError

# Seconds that one answer may take, and that a process may take to end.
LIMIT_S, GRACE_S = 900.0, 5.0
# In the process's folder: what libraries print. Of it, the end is for people.
LOG, TAIL_CHARACTERS = "output.log", 600


class WorkerError(EngineError):
    """A backend's process has died, hung, or failed at something; says what it last wrote."""


def serve(pipe: Connection, folder: str, name: str, workload: Workload) -> None:
    """The process: answer (method of the backend, arguments) by (result, error) until the pipe is closed."""
    log = os.open(Path(folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    # What is made on disk is in there, so that nothing is left however this ends.
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    backend: Any = None
    while True:
        try:
            what, details = pipe.recv()
        except EOFError:
            break
        try:
            if what == "open":
                backend, result = make(name, workload), None
            else:
                result = getattr(backend, what)(**details)
            if what in ("check", "limits", "share", "batches"):
                tidy()
            elif what == "load":
                result = backend.start_up, backend.version, backend.dtype, backend.work
            answer: tuple[Any, Exception | None] = result, None
        except Exception as error:
            traceback.print_exc()
            known = isinstance(error, NotRun | BarkfastError)
            answer = None, error if known else WorkerError(f"{what}: {type(error).__name__}: {error}")
        pipe.send(answer)
    if backend is not None:
        backend.close()


def make(name: str, workload: Workload) -> Backend:
    """The backend, with as many threads of torch as barkfast's engines use."""
    import torch

    if workload.resolve().device == "cpu":
        torch.set_num_threads(count_threads())
    if name == OURS:
        return Ours(workload)
    from barkfast.bench.peers import PEERS

    return PEERS[name](workload)


class Remote(Backend):
    """A backend that runs in another process; `check`, `limits`, `share` and `batches` are barkfast's alone.

    Args:
        name: barkfast, or a peer's.
        limit_s: seconds that any answer may take; then the process is ended.
        target: what the process runs.
    """

    def __init__(
        self, name: str, workload: Workload, *, limit_s: float = LIMIT_S, target: Callable[..., None] = serve
    ) -> None:
        super().__init__(workload)
        self.name, self.limit_s, self._target = name, limit_s, target
        self._process: Any = None
        self._waiting = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start the process, and make the backend there."""
        self._folder = tempfile.TemporaryDirectory(prefix="barkfast-bench-", ignore_cleanup_errors=True)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._target, args=(theirs, self._folder.name, self.name, self.workload))
        # Ctrl-C reaches only this side, which keeps what was measured, and then ends the process.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._ask("open")

    def load(self) -> None:
        """Its imports count from the start of the process on."""
        begin = time.perf_counter()
        self.start()
        started = time.perf_counter() - begin
        start_up, self.version, self.dtype, self.work = self._ask("load")
        self.start_up = {**start_up, "import_s": started + start_up["import_s"]}

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        return self._ask("speak", seed=seed, seconds=seconds)

    def memory(self) -> dict[str, Any]:
        return self._ask("memory")

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        self._ask("trace", path=os.path.abspath(path), seed=seed)

    def check(self) -> list[dict[str, Any]]:
        return self._ask("check")

    def limits(self) -> list[Limits]:
        return self._ask("limits")

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
            # It ends with its pipe.
            self._pipe.close()
            process.join(GRACE_S)
            process.kill()
            process.join()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _ask(self, what: str, **details: Any) -> Any:
        """Send a request and wait for its answer. Raises: the process's own error, WorkerError."""
        if self._process is None:
            raise NotRun(f"{self.name} is not loaded; call load() first")
        self._waiting = True
        try:
            self._pipe.send((what, details))
            answered = self._pipe.poll(self.limit_s)
            result, error = self._pipe.recv() if answered else (None, None)
        except (EOFError, OSError):
            self._process.join()
            status = self._process.exitcode
            raise WorkerError(f"{what}: the process ended with status {status}; {self._tail()}") from None
        if not answered:
            self._process.kill()
            self._process.join()
            raise WorkerError(f"{what}: ended after {self.limit_s:g} s without an answer; {self._tail()}")
        self._waiting = False
        if error is not None:
            raise error
        return result

    def _tail(self) -> str:
        """The end of what the process wrote for people, on one line."""
        assert self._folder is not None
        with suppress(OSError):
            text = " ".join((Path(self._folder.name) / LOG).read_text(encoding="utf-8", errors="replace").split())
            if text:
                return f"it last wrote: {text[-TAIL_CHARACTERS:]}"
        return "it wrote nothing"
