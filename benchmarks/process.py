"""Processes with a time limit: whatever happens in them is survived, named, and in a log."""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.saving import read_end

ROOT = Path(__file__).resolve().parents[1]
# Between asking a process to end and ending it.
GRACE_S = 2.0


@dataclass
class Process:
    """A command that was started.

    Args:
        limit: seconds it may take.
        log: what it prints.
    """

    name: str
    limit: float
    log: Path
    popen: subprocess.Popen[bytes] | None
    started: float
    status: str = "running"
    reason: str = ""
    seconds: float = 0.0

    def poll(self) -> bool:
        """Whether it has ended; ends it when its time is over."""
        if self.status != "running":
            return True
        assert self.popen is not None
        code = self.popen.poll()
        now = time.monotonic()
        if code is None and now - self.started < self.limit:
            return False
        self.seconds = round(now - self.started, 1)
        if code is None:
            self._end()
            self.status, self.reason = "timeout", f"ended after its limit of {self.limit:.0f} s"
        elif code == 0:
            self.status = "ok"
        else:
            self.status = "failed"
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            self.reason = f"ended with {how}: {last_line(self.log)}"
        return True

    @property
    def returncode(self) -> int | None:
        return None if self.popen is None else self.popen.returncode

    def stop(self, reason: str = "ended with everything else") -> None:
        """End it now; as a failure, for `reason`."""
        if self.status == "running" and not self.poll():
            self.seconds = round(time.monotonic() - self.started, 1)
            self._end()
            self.status, self.reason = "failed", reason

    def _end(self) -> None:
        """Ask the process to end, then end it with all its children."""
        assert self.popen is not None
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, sign)
            # One that waits for a device in trouble may not even end then; it is left behind.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(GRACE_S)


def start(name: str, command: list[str], log: Path, limit: float, env: dict[str, str] | None = None) -> Process:
    """Start `command` in a process group of its own, what it prints added to `log`."""
    try:
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=ROOT,
                start_new_session=True,
            )
    except OSError as error:
        return Process(name, limit, log, None, time.monotonic(), "failed", f"could not be started: {error}")
    return Process(name, limit, log, popen, time.monotonic())


def last_line(path: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        lines = read_end(path, 4096).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
