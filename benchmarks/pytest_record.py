"""A pytest plugin that writes every test's outcome down at once, so that a run that hangs or crashes keeps the rest.

Used as `-p benchmarks.pytest_record`; the file is named by the variable below, a JSON object per line.
"""

import json
import os
from typing import Any

VARIABLE = "BENCHMARKS_TEST_RECORD"


def _write(**content: Any) -> None:
    path = os.environ.get(VARIABLE)
    if path:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(content) + "\n")


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    _write(test=nodeid, outcome="began")


def pytest_runtest_logreport(report: Any) -> None:
    """A phase of a test has ended: its call, or set-up and tear-down if they say anything."""
    if report.when == "call" or report.outcome != "passed":
        _write(test=report.nodeid, outcome=report.outcome, when=report.when, message=_message(report))


def pytest_runtest_logfinish(nodeid: str, location: Any) -> None:
    _write(test=nodeid, outcome="ended")


def pytest_collectreport(report: Any) -> None:
    """A file that cannot be collected counts as a failure."""
    if report.failed:
        _write(test=report.nodeid or "collection", outcome="failed", when="collect", message=_message(report))


def _message(report: Any) -> str:
    """The first line of what went wrong, or why it was skipped."""
    if report.outcome == "passed":
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        text = crash.message
    elif isinstance(report.longrepr, tuple):
        text = report.longrepr[-1]
    else:
        # Of a file that does not even import only the text is there; its end says why.
        text = next((line for line in reversed(str(report.longrepr).splitlines()) if line.strip()), "")
    return str(text).strip().split("\n")[0][:300]
