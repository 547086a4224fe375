"""Options and fixtures: which model on which device."""

import sys
from pathlib import Path
from typing import Any

import pytest

# So that a checkout can be measured in place, without an install.
sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in (".", "kernels")]

from barkfast.errors import BarkfastError  # noqa: E402
from barkfast.runtime.select import resolve_device  # noqa: E402
from barkfast.weights.random import SIZES  # noqa: E402
from benchmarks.suites.measure import Measure, Setting  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("barkfast")
    group.addoption("--size", choices=sorted(SIZES), help="random weights of this size; without it, small")
    group.addoption("--device", default="auto", help="as barkfast names it; without it, the best there is")
    group.addoption("--smoke", action="store_true", help="the smallest model, one round: to see that everything runs")


def pytest_configure(config: pytest.Config) -> None:
    """Say at once what cannot work."""
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("the suites need pytest-benchmark; run: pip install 'barkfast[test]'")
    try:
        resolve_device(config.getoption("device"))
    except BarkfastError as error:
        raise pytest.UsageError(f"--device: {error}") from error


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """A file of a suite is called bench_*.py; one that is named on the command line pytest collects by itself."""
    named = parent.session.isinitpath(file_path)
    if file_path.name.startswith("bench_") and file_path.suffix == ".py" and not named:
        return pytest.Module.from_parent(parent, path=file_path)
    return None


def setting_of(config: pytest.Config) -> Setting:
    smoke = config.getoption("smoke")
    size = config.getoption("size") or ("nano" if smoke else "small")
    return Setting(size, resolve_device(config.getoption("device")), smoke)


@pytest.fixture(scope="session")
def setting(pytestconfig: pytest.Config) -> Setting:
    """What is measured, and how often."""
    return setting_of(pytestconfig)


@pytest.fixture
def measure(benchmark: Any, setting: Setting, request: pytest.FixtureRequest) -> Measure:
    """How a test takes its times; where the gate is red for its engine and dtype the test fails without one."""
    measure, call = Measure(benchmark, setting), getattr(request.node, "callspec", None)
    if call is not None and {"engine", "dtype"} <= call.params.keys():
        measure.check(call.params["engine"], call.params["dtype"])
    return measure


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Device, versions, commit and threads, as in every result."""
    from barkfast.bench.machine import describe_machine

    machine_info["barkfast"] = describe_machine(setting_of(config).device)
