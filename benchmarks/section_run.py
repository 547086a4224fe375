"""One section on its way: a process that is started again behind a row at which it crashed or hung."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.budget import Step
from benchmarks.process import Process
from benchmarks.record import read_fragment

if TYPE_CHECKING:
    from benchmarks.runner import Run

# Most often that a section is started again.
RESTARTS = 12
# With less than this a step is not begun.
LEAST_S = 5.0
# Between looks at how long a row has been running.
LOOK_S = 0.25


class SectionRun:
    """To be polled until it has ended.

    Args:
        limit: seconds for all of it.
        row_limit: for one row; 0 for no other limit.
    """

    def __init__(
        self, runner: "Run", step: Step, limit: float, row_limit: float = 0, env: dict[str, str] | None = None
    ) -> None:
        self.runner, self.step, self.row_limit, self.env = runner, step, row_limit, env
        self.end = time.monotonic() + limit
        self.starts = 0
        self._begin()

    def _begin(self) -> None:
        self.before = read_fragment(self.path)
        self.process: Process = self.runner.start_section(self.step, self.end - time.monotonic(), self.env)
        self.starts += 1
        self.next_look = time.monotonic() + LOOK_S

    @property
    def path(self) -> Path:
        return self.runner.fragment(self.step.name)

    def poll(self) -> bool:
        """Whether it has ended; ends a row whose time is over, and starts the section again behind it."""
        self._end_overdue_row()
        if not self.process.poll():
            return False
        after = read_fragment(self.path)
        # One that wrote nothing and was at no row would only fail the same way again.
        moved = after["running"] is not None or _count(after) > _count(self.before)
        last = self.starts > RESTARTS or self.end - time.monotonic() < 2 * LEAST_S or not moved
        if self.runner.finish_section(self.step, self.process, last=last) != "failed" or last:
            return True
        self.runner.say(f"{self.step.name}: {self.process.reason}; starting again behind that row")
        self._begin()
        return False

    def stop(self) -> None:
        self.process.stop()

    def _end_overdue_row(self) -> None:
        now = time.monotonic()
        if not self.row_limit or now < self.next_look:
            return
        self.next_look = now + LOOK_S
        # In this order: the file is written anew when a row begins and when it ends.
        if read_fragment(self.path)["running"] is None:
            return
        if time.time() - self.path.stat().st_mtime > self.row_limit:
            self.process.stop(f"ended after the limit of {self.row_limit:.0f} s for one row")


def _count(fragment: dict[str, Any]) -> int:
    return len(fragment["rows"]) + len(fragment["failures"])
