"""The description of the machine, on this one and on made-up ones."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import barkfast
from barkfast.bench import machine
from barkfast.bench.machine import describe_machine, describe_source, memory_available, query_smi, smi_used_bytes
from barkfast.runtime.cpu import levels

ROOT = Path(__file__).resolve().parents[2]


def test_the_machine_is_described_whatever_the_device():
    machine = describe_machine("cpu")
    json.dumps(machine)
    assert machine["barkfast"] == barkfast.__version__ and machine["threads"] >= 1
    assert machine["date"].endswith("Z") and machine["packages"]["torch"]
    assert machine["device"] == machine["cpu"] and machine["cpu"]["cores"] >= 1
    assert machine["cpu"]["name"].endswith(f"{machine['cpu']['cores']} cores")
    # A missing device is "unknown", with the error beside it.
    other = describe_machine("cuda:99")
    assert other["device"]["name"] == "unknown" and other["device"]["error"]
    assert other["cpu"]["name"] == machine["cpu"]["name"]


def test_the_source_is_that_of_the_checkout():
    source = describe_source()
    assert len(source["digest"]) == 16
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode == 0:
        assert source["commit"] == git.stdout.strip() and isinstance(source["dirty"], bool)


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The package is inside another repository, whose commit says nothing about barkfast.
    package = tmp_path / "site-packages" / "barkfast"
    package.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (package / "bark.py").write_text("old = 1\n")
    monkeypatch.setattr(machine, "PACKAGE", package)
    first = describe_source()
    assert (first["commit"], first["dirty"]) == (None, None)
    (package / "bark.py").write_text("new = 1\n")
    assert describe_source()["digest"] != first["digest"]


def test_memory_is_what_the_system_and_the_container_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  4000 kB\nMemAvailable:  2000 kB\n")
    monkeypatch.setattr(machine, "MEMINFO", meminfo)
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    assert machine.read_memory("MemTotal") == 4000 * 1024
    assert memory_available() == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000\n")
    assert memory_available() == 2000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory_available() == 300_000
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    assert memory_available() == 500_000
    (tmp_path / "memory.max").write_text("1\n")
    assert memory_available() == 0
    assert machine.device_memory("cpu") is None


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(levels, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("cpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Some Processor\n")
    assert machine.read_model() == "Some Processor (family 6, model 85)"
    for number, (level, kind, size) in enumerate(
        (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1M"))
    ):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "CACHES", tmp_path)
    assert machine.read_caches() == {"L1": "48K", "L1i": "32K", "L2": "1M"}
    assert machine.read_line(tmp_path / "gone") is None


@pytest.mark.skipif(os.name != "posix" or shutil.which("sh") is None, reason="the stand-in is a shell script")
def test_nvidia_smi_is_asked_for_the_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\necho "$@" > "$0.asked"\necho "$ANSWER"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ANSWER", "600.1, 1024 MiB")
    assert query_smi({"driver": "driver_version", "used": "memory.used"}, "GPU-7") == {
        "driver": "600.1",
        "used": "1024 MiB",
    }
    asked = (tmp_path / "nvidia-smi.asked").read_text().split()
    assert asked[:3] == ["-i", "GPU-7", "--query-gpu=driver_version,memory.used"]
    monkeypatch.setenv("ANSWER", "1024 MiB")
    assert smi_used_bytes() == 2**30
    monkeypatch.setenv("ANSWER", "[N/A]")
    assert smi_used_bytes() is None
    script.write_text("#!/bin/sh\nexit 9\n")
    assert query_smi({"driver": "driver_version"}) is None


def test_without_nvidia_smi_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert query_smi({"driver": "driver_version"}) is None
    assert smi_used_bytes() is None
