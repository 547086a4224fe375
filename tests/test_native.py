"""The optional native module: what it reports, and that an install succeeds without it."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from barkfast import native

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def fresh_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear the cached import before and after the test."""
    native._import_native.cache_clear()
    yield
    native._import_native.cache_clear()


def test_the_status_agrees_with_the_module():
    present, status = native.native_status()
    assert present == (native.load_native() is not None)
    assert status.startswith("loaded; this CPU has") == present


def test_features_are_those_the_system_reports():
    module = native.load_native()
    if module is None:
        pytest.skip(native.native_status()[1])
    features = module.cpu_features()
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.exists():
        pytest.skip("only x86 Linux lists its instruction sets in a form to compare with")
    line = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    flags = line.split(":")[1].split()
    assert {name for name, present in features.items() if present} == set(features) & set(flags)


@pytest.mark.usefixtures("fresh_import")
def test_an_absent_module_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    note = tmp_path / "_native_build.txt"
    monkeypatch.setattr(native, "BUILD_NOTE", note)
    # None in sys.modules makes the import fail as if the file were not there.
    monkeypatch.setitem(sys.modules, "barkfast._native", None)
    assert native.load_native() is None
    assert "cmake" in native.native_status()[1]

    native._import_native.cache_clear()
    note.write_text("cmake was not found\n")
    assert native.native_status() == (False, "not built: cmake was not found")


@pytest.mark.parametrize("cmake", [None, "echo 'CMake Error: no CXX compiler could be found'; exit 1"])
def test_a_build_that_cannot_compile_succeeds_and_leaves_its_reason(cmake: str | None, tmp_path: Path):
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} cannot read pyproject.toml; the build needs 77")
    tools = tmp_path / "bin"
    tools.mkdir()
    if cmake:
        (tools / "cmake").write_text(f"#!/bin/sh\n{cmake}\n")
        (tools / "cmake").chmod(0o755)
    (tools / "pybind11.py").write_text("get_cmake_dir = lambda: ''\n")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path / "lib", "--build-temp", tmp_path]
    env = {**os.environ, "PATH": str(tools), "PYTHONPATH": str(tools)}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    note = (tmp_path / "lib" / "barkfast" / "_native_build.txt").read_text()
    assert ("no CXX compiler" if cmake else "cmake was not found") in note
    assert "without the native module" in result.stderr


@pytest.mark.usefixtures("fresh_import")
def test_a_module_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "barkfast._native", ModuleType("barkfast._native"))
    assert native.load_native() is None
    assert native.native_status() == (
        False,
        "built from other sources than the Python code: run `pip install` again",
    )
