"""Samples of sweeps: with the rest they are all cases, and the same date has the same sample in every process."""

from datetime import datetime, timezone
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FILE = """
import pytest

@pytest.mark.sweep(4)
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.corner), 2, 3, 4])
@pytest.mark.parametrize("dtype", ["half", "float", "int"])
def test_sizes(size, dtype):
    pass

@pytest.mark.sweep(2)
class TestShapes:
    @pytest.mark.parametrize("rows", range(9))
    def test_rows(self, rows):
        pass

    @pytest.mark.parametrize("few", range(2))
    def test_few(self, few):
        pass

    def test_shape(self):
        pass

@pytest.mark.parametrize("case", range(3))
def test_each(case):
    pass
"""
# Those that no sample leaves out.
ALWAYS = {f"test_sizes[{dtype}-1]" for dtype in ("half", "float", "int")}
ALWAYS |= {"TestShapes::test_few[0]", "TestShapes::test_few[1]", "TestShapes::test_shape"}
ALWAYS |= {f"test_each[{case}]" for case in range(3)}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makepyfile(test_sample=FILE)
    return pytester


def start(suite: pytest.Pytester, *options: str) -> pytest.RunResult:
    if "-n2" not in options:
        return suite.runpytest("-p", "sweeps", *options)
    # The workers of pytest-xdist have the paths that the interpreter began with.
    return suite.runpytest_subprocess("-p", "sweeps", "-p", "xdist", *options)


def run(suite: pytest.Pytester, *options: str, last_line: str = "sweeps: *") -> set[str]:
    """The names of the tests that ran, each once."""
    result = start(suite, "-v", *options)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["sweeps: *", "*PASSED*", last_line])
    passed = [line.split("PASSED")[-1 if "-n2" in options else 0] for line in result.outlines if "PASSED" in line]
    names = [name.split()[0].removeprefix("test_sample.py::") for name in passed]
    assert len(names) == len(set(names))
    return set(names)


def test_the_sample_and_the_rest_are_all(suite: pytest.Pytester):
    every = run(suite, "--all")
    assert len(every) == 12 + 9 + 2 + 1 + 3
    for day in ("2026-11-30", "2026-12-01"):
        sample, rest = run(suite, f"--sample={day}"), run(suite, f"--sample={day}", "--rest")
        assert sample | rest == every and not sample & rest
        assert sample >= ALWAYS and len(sample) == len(ALWAYS) + 4 + 2


def test_a_sample_is_that_of_its_date(suite: pytest.Pytester):
    samples = [frozenset(run(suite, f"--sample=2026-11-{day}")) for day in (*range(10, 18), *range(10, 18))]
    assert samples[:8] == samples[8:]
    assert len(set(samples)) > 4


def test_every_value_occurs(suite: pytest.Pytester):
    for day in range(10, 18):
        sizes = {name for name in run(suite, f"--sample=2026-11-{day}") if name.startswith("test_sizes")}
        assert {name[-2] for name in sizes} == set("1234")


def test_all_workers_have_the_same_sample(suite: pytest.Pytester):
    sample = run(suite, "--sample=2026-11-30")
    last_line = "sweeps: sample of 2026-11-30, 11 of 23 cases; --sample=2026-11-30 repeats it, --all runs every case"
    assert run(suite, "--sample=2026-11-30", "-n2", last_line=last_line) == sample
    assert not run(suite, "--sample=2026-11-30", "--rest", "-n2") & sample


def test_what_is_named_runs(suite: pytest.Pytester):
    rest = run(suite, "--sample=2026-11-30", "--rest")
    named = {min(name for name in rest if text in name) for text in ("sizes", "rows")}
    arguments = [f"test_sample.py::{name}" for name in named]
    assert run(suite, "--sample=2026-11-30", *arguments) == named
    assert run(suite, "--sample=2026-11-30", *arguments, "-n2") == named
    assert len(run(suite, "test_sample.py::test_sizes")) == 12
    assert len(run(suite, "test_sample.py::TestShapes")) == 9 + 2 + 1


def test_the_run_says_what_it_was(suite: pytest.Pytester):
    result = start(suite, "--sample=2026-11-30")
    last = "sweeps: sample of 2026-11-30, 11 of 23 cases; --sample=2026-11-30 repeats it, --all runs every case"
    result.stdout.fnmatch_lines(["sweeps: sample of 2026-11-30", last])
    result = start(suite, "--sample=2026-11-30", "--rest")
    result.stdout.fnmatch_lines(["sweeps: all but the sample of 2026-11-30, 12 of 23 cases*"])
    start(suite, "--all").stdout.fnmatch_lines(["sweeps: every case", "sweeps: every case, 23 of 23 cases"])


def test_the_default_is_the_sample_of_today(suite: pytest.Pytester):
    before = datetime.now(timezone.utc).date()
    result = start(suite)
    after = datetime.now(timezone.utc).date()
    assert any(f"sweeps: sample of {day}" in result.outlines for day in (before, after))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--all", "--rest"], "--all leaves no rest"),
        (["--sample=today"], "--sample=today is no date"),
        (["--sample=2026-02-30"], "--sample=2026-02-30 is no date"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(suite: pytest.Pytester, options: list[str], message: str):
    result = start(suite, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{message}*"])


@pytest.mark.parametrize("options", [[], ["-n2"]], ids=["alone", "workers"])
def test_a_rest_that_is_empty_is_no_failure(suite: pytest.Pytester, options: list[str]):
    suite.makepyfile(test_sample="def test_one():\n    pass\n")
    assert start(suite, "--rest", *options).ret == pytest.ExitCode.OK
    # But a file without tests is one.
    suite.makepyfile(test_sample="")
    assert start(suite, *options).ret == pytest.ExitCode.NO_TESTS_COLLECTED
