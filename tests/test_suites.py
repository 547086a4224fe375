"""The pytest-benchmark suite: all of it runs with the smallest model, and it times nothing whose results are wrong."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from barkfast.native import native_status

ROOT = Path(__file__).resolve().parents[1]
RED = """
from barkfast.bench import check

check.check = lambda workload: [check.Check("planted", False, 1.0, 0.1, "rms ratio")]
"""

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed (the extra `test`)")


def run_suites(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run suites in a separate process; return it and the benchmarks in their file."""
    out = folder / "out.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--smoke", "--device", "cpu"]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    paths = [str(ROOT), str(ROOT / "kernels"), str(folder)]
    result = subprocess.run(
        [*command, f"--benchmark-json={out}", *arguments],
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": os.pathsep.join(paths), "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    return result, json.loads(text)["benchmarks"] if text else []


@pytest.mark.slow
def test_the_suite_runs(tmp_path: Path):
    result, benchmarks = run_suites(tmp_path, "benchmarks/suites")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert content["machine_info"]["barkfast"]["device"]["name"]
    for benchmark in benchmarks:
        assert benchmark["extra_info"]["size"] == "nano" and benchmark["extra_info"]["device"] == "cpu"
        assert benchmark["stats"]["median"] > 0, benchmark["fullname"]
    kernels = {b["name"] for b in benchmarks}
    for name, present in (("test_linear", native_status()[0]), ("test_triton", find_spec("triton") is not None)):
        assert any(kernel.startswith(name) for kernel in kernels) == present


def test_a_red_gate_lets_no_time_be_taken(tmp_path: Path):
    (tmp_path / "red_gate.py").write_text(RED, encoding="utf-8")
    result, benchmarks = run_suites(tmp_path, "-p", "red_gate", "benchmarks/suites", "-k", "test_linear")
    assert result.returncode == 1
    assert "the correctness gate is red, so no time is taken: planted" in result.stdout
    assert benchmarks == [] and " passed" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "device is 'tpu'"),
        (["-p", "no:benchmark"], "pip install 'barkfast[test]'"),
    ],
)
def test_options_that_cannot_work_are_refused(arguments: list[str], words: str, tmp_path: Path):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "benchmarks/suites", *arguments]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    result = subprocess.run(command, cwd=ROOT, env=inherited, capture_output=True, text=True, timeout=120)
    assert result.returncode == 4
    assert words in result.stdout + result.stderr
