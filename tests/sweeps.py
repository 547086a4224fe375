"""Samples of large parametrized families: a pytest plugin.

A test marked `sweep(n)` checks one property at many points. A run keeps n of its cases, drawn with the date as the seed
so that each value of each parameter occurs as far as n allows; cases marked `corner` are kept beside these n.
`--rest` runs exactly the cases that this sample leaves out, `--all` every test. Tests, classes and cases that are named
on the command line by their node ids always run.
"""

from collections import defaultdict
from datetime import date, datetime, timezone
from random import Random
from typing import Any

import pytest

MARKERS = (
    "sweep(n): one property at many points, of which n run without --all",
    "corner: a case of a sweep that is in every sample",
)
# Cases of sweeps that run, and all cases of sweeps.
COUNTS = pytest.StashKey[tuple[int, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the cases."""
    group = parser.getgroup("sweeps")
    group.addoption("--all", action="store_true", help="run every case of the tests marked `sweep`")
    group.addoption("--rest", action="store_true", help="run only the cases that the sample leaves out")
    group.addoption("--sample", metavar="YYYY-MM-DD", help="the sample of this date instead of today's (UTC)")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; fix the date, which the workers of pytest-xdist receive with the other options."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    option = config.option
    if option.all and option.rest:
        raise pytest.UsageError("--all leaves no rest: give one of --all and --rest")
    try:
        day = date.fromisoformat(option.sample) if option.sample else datetime.now(timezone.utc).date()
    except ValueError:
        raise pytest.UsageError(f"--sample={option.sample} is no date; give one such as 2026-11-30") from None
    option.sample = day.isoformat()


def describe(config: pytest.Config) -> str:
    """Which cases of the sweeps run."""
    if config.option.all:
        return "sweeps: every case"
    return f"sweeps: {'all but the ' if config.option.rest else ''}sample of {config.option.sample}"


def pytest_report_header(config: pytest.Config) -> str:
    """Say which cases will run; how many these are is known at the end."""
    return describe(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what does not run."""
    sweeps: defaultdict[str, list[Any]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sweep") and hasattr(item, "callspec"):
            sweeps[item.nodeid.removesuffix(f"[{item.callspec.id}]")].append(item)
    cases = {case for of_one_test in sweeps.values() for case in of_one_test}
    if config.option.all:
        chosen = set(items)
    else:
        sample = {case for name, some in sweeps.items() for case in draw(some, f"{config.option.sample} {name}")}
        chosen = cases - sample if config.option.rest else sample | (set(items) - cases)
        chosen |= {item for item in items if is_named(item)}
    config.stash[COUNTS] = len(chosen & cases), len(cases)
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]


def draw(cases: list[Any], seed: str) -> list[Any]:
    """The sample of one test's cases: first those that add the most values of parameters."""
    (n,) = cases[0].get_closest_marker("sweep").args
    sample = [case for case in cases if case.get_closest_marker("corner")]
    size = len(sample) + n
    others = [case for case in cases if case not in sample]
    Random(seed).shuffle(others)
    seen = {value for case in sample for value in values_of(case)}
    while others and len(sample) < size:
        case = max(others, key=lambda case: len(values_of(case) - seen))
        others.remove(case)
        sample.append(case)
        seen |= values_of(case)
    return sample


def values_of(case: Any) -> set[tuple[str, str]]:
    """Names and values of the case's parameters."""
    return {(name, repr(value)) for name, value in case.callspec.params.items()}


def is_named(item: pytest.Item) -> bool:
    """Whether the command line has the node id of the item, its test or its class."""
    inside = item.nodeid.partition("::")[2]
    for argument in item.config.args:
        path, _, name = argument.partition("::")
        here = name and item.config.invocation_params.dir / path == item.path
        if here and (inside == name or inside.startswith((f"{name}[", f"{name}::"))):
            return True
    return False


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Send a worker's counts to the process that prints them; a sample that leaves nothing out is no failure."""
    if session.config.option.rest and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
    if hasattr(session.config, "workeroutput") and COUNTS in session.config.stash:
        session.config.workeroutput["sweeps"] = session.config.stash[COUNTS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts of a finished worker: they are the same in all."""
    if "sweeps" in getattr(node, "workeroutput", {}):
        node.config.stash[COUNTS] = node.workeroutput["sweeps"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases ran, and how to run the same or all."""
    config = terminalreporter.config
    n, total = config.stash.get(COUNTS, (0, 0))
    if not total:
        return
    again = "" if config.option.all else f"; --sample={config.option.sample} repeats it, --all runs every case"
    terminalreporter.write_line(f"{describe(config)}, {n} of {total} cases{again}")
