"""What a section has measured so far, in a file that is complete after every row."""

import gc
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan
from benchmarks.saving import replace_file

# Below this many seconds nothing new is begun.
LEAST = 2.0
# A section that ends with this status wants to be started again, without the rows it has already been through.
LOST_DEVICE = 70

Row = dict[str, Any]


class NotRun(Exception):
    """Something cannot be measured here; the message says why."""


def write_json(path: Path, content: Any) -> None:
    """Replace `path` in one go, so that a reader never sees half of it."""
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())


def read_fragment(path: Path) -> dict[str, Any]:
    """A section's file; an empty one if there is none."""
    if not path.exists():
        return {"rows": [], "failures": [], "running": None, "complete": False}
    return json.loads(path.read_text(encoding="utf-8"))


def settle(fragment: dict[str, Any], reason: str) -> dict[str, Any]:
    """The file of a process that ended: the row it was at, if any, failed for `reason`."""
    if fragment["running"] is not None:
        failure = {"row": fragment["running"], "status": "failed", "reason": reason}
        fragment = fragment | {"failures": [*fragment["failures"], failure], "running": None}
    return fragment


class Recorder:
    """Runs a section's rows one by one; a row that fails does not keep the next from running."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self.plan = path, plan
        self._content = read_fragment(path)
        known = [row["row"] for row in self._content["rows"] + self._content["failures"]]
        self._known = set(known)

    def _write(self) -> None:
        write_json(self.path, self._content)

    def _fail(self, name: str, status: str, reason: str) -> None:
        self._content["failures"].append({"row": name, "status": status, "reason": reason[:500]})

    def measure(self, name: str, work: Callable[[], Row], *, dtype: str | None = None) -> Row | None:
        """Run `work` and write down the row it returns; None if it failed, or is already written down."""
        if name in self._known:
            return None
        self._known.add(name)
        row = None
        if (reason := self.plan.why_refused(name, dtype)) is not None:
            self._fail(name, "not run", reason)
        elif self.plan.time_left < LEAST:
            self._fail(name, "not run", "the section's time was spent")
        else:
            row = self._run(name, work)
        self._content["running"] = None
        self._write()
        return row

    def _run(self, name: str, work: Callable[[], Row]) -> Row | None:
        self._content["running"] = name
        self._write()
        print(f"{name} ...", flush=True)
        try:
            row: Row | None = {"row": name} | work()
        except NotRun as error:
            print(f"{name}: not run: {error}", flush=True)
            self._fail(name, "not run", str(error))
            return None
        except Exception as error:
            traceback.print_exc()
            self._fail(name, "failed", f"{type(error).__name__}: {error}")
            self._content["running"] = row = None
            self._write()
        # Not inside `except`: there the traceback still holds what the row allocated.
        if row is None:
            _recover()
        else:
            print(json.dumps(row), flush=True)
            self._content["rows"].append(row)
        return row

    def finish(self) -> None:
        self._content["complete"] = True
        self._write()

    @property
    def all_well(self) -> bool:
        return not any(failure["status"] == "failed" for failure in self._content["failures"])


def _recover() -> None:
    """Free memory after a failure; leave the process if its device is lost for good."""
    import torch

    gc.collect()
    if not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception as error:
        print(f"the device is lost to this process: {error}", flush=True)
        os._exit(LOST_DEVICE)
