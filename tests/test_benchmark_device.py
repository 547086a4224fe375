"""What `make gpu` asks besides its sections: the probe, whether anything else is on the device, which sources ran."""

import importlib
import inspect
import json
import subprocess
from pathlib import Path

import pytest

from barkfast.bench import machine
from benchmarks import idle, probe
from benchmarks.budget import FULL, GPU, Step, cpu_budget
from benchmarks.gpu_tests import SETS, find_tests
from benchmarks.process import ROOT

CHAIN = {"test": "chain", "name": "48K", "trigger": 1, "how": 1, "pdl": 1, "carve": -1, "kb": 48, "us": 2.5}


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an nvidia-smi of our own in front."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_an_idle_device_is_not_waited_for(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "exit 0")
    assert idle.wait_until_idle(60) == ""


def test_a_process_that_leaves_is_waited_for_and_one_that_stays_is_noted(tmp_path, monkeypatch):
    busy = "echo '4711, python3'"
    smi(tmp_path, monkeypatch, f"[ -e {tmp_path}/seen ] || {{ touch {tmp_path}/seen; {busy}; }}")
    assert idle.wait_until_idle(60) == ""
    assert (tmp_path / "seen").exists()
    smi(tmp_path, monkeypatch, busy)
    assert "4711, python3" in idle.wait_until_idle(0.1)


@pytest.mark.parametrize("script", ["exit 9", "sleep 60"])
def test_a_tool_that_does_not_answer_is_noted(tmp_path, monkeypatch, script):
    monkeypatch.setattr(idle, "ANSWER_S", 0.5)
    smi(tmp_path, monkeypatch, script)
    assert "does not say" in idle.wait_until_idle(60)


def test_what_the_probe_printed_is_rows_as_far_as_it_got(tmp_path):
    path = tmp_path / "probe.log"
    device = {"test": "device", "name": "a GPU", "sms": 132}
    lines = [json.dumps(device), json.dumps(CHAIN), json.dumps(CHAIN | {"carve": 100}), '{"test": "chain", "na']
    path.write_text("\n".join(lines))
    fragment = probe.read_fragment(path, "ended after its limit of 30 s")
    assert [row["test"] for row in fragment["rows"]] == ["device", "chain", "chain"]
    assert len({row["row"] for row in fragment["rows"]}) == 3
    assert not fragment["complete"] and "limit" in fragment["reason"]
    path.write_text(path.read_text() + '\n{"error": "no such device", "line": 44}\n')
    assert [f["reason"] for f in probe.read_fragment(path, "")["failures"]] == ["no such device"]
    assert probe.read_fragment(tmp_path / "absent", "not started")["rows"] == []


def test_the_compiler_takes_the_probe(tmp_path):
    compiler = probe.find_compiler()
    if compiler is None:
        pytest.skip("nvcc is not installed: the probe was not compiled")
    command = [*probe.build_command(compiler, tmp_path / "probe"), "-Xptxas", "-v"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    spills = [line for line in result.stderr.splitlines() if "spill" in line]
    assert spills and all("0 bytes spill stores, 0 bytes spill loads" in line for line in spills)
    assert "warning" not in result.stderr


SECTIONS = {s.name: s for s in (*GPU.steps, *FULL.steps, *cpu_budget((1, 2)).steps) if s.kind == "section"}


@pytest.mark.parametrize("step", SECTIONS.values(), ids=SECTIONS.keys())
def test_every_section_of_a_run_is_there(step: Step):
    module, _, part = step.name.partition(" ")
    run = importlib.import_module(f"benchmarks.sections.{module}").run
    inspect.signature(run).bind("plan", "record", *([part] if part else []))


def test_the_tests_of_a_call_are_there():
    names = [file.name for file in find_tests()]
    assert len(set(names)) == len(names)
    # Those whose cases compile much are split, and none is lost: each part selects what the others do not.
    parts = [file for file in find_tests() if file.path == ROOT / "tests" / "ops" / "test_hopper.py"]
    assert len(parts) == 3 and all(file.select for file in parts)
    chosen = [file for file in SETS["hopper"]() if file.exists()]
    assert {file.path.name for file in chosen} >= {"test_hopper.py"} and len(chosen) >= 2


@pytest.mark.parametrize("suffix", [".py", ".cu", ".cuh", ".cpp"])
def test_every_source_is_in_the_digest(tmp_path, suffix):
    source = tmp_path / "kernels" / f"file{suffix}"
    source.parent.mkdir()
    source.write_text("one")
    before = machine._digest([source.parent])
    source.write_text("another")
    assert machine._digest([source.parent]) != before
