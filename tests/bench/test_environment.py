"""The description of the machine, on this one and on made-up ones."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import barkfast
from barkfast.bench import machine
from barkfast.bench.machine import describe_machine, describe_source, memory_available, read_gpu, smi_used_bytes
from barkfast.errors import InputError
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
    monkeypatch.setattr(machine, "system_memory", lambda: (4000 * 1024, 2000 * 1024))
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
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
    assert machine.free_memory("cpu") == 0


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


def test_without_psutil_all_memory_counts_as_free(monkeypatch: pytest.MonkeyPatch):
    psutil = pytest.importorskip("psutil", reason="psutil is not installed (the extra `bench`)")
    total, free = machine.system_memory()
    assert total == psutil.virtual_memory().total and free is not None and 0 < free < total
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert machine.system_memory() == (pytest.approx(total, rel=0.01),) * 2
    assert describe_machine("cpu")["cpu"]["memory_bytes"] == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize(("module", "device"), [("psutil", "cpu"), ("pynvml", "cuda:0")])
def test_bench_needs_its_packages(module: str, device: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"needs .* pip install 'barkfast\[bench\]'"):
        machine.require_packages(device)
    if module == "pynvml":
        machine.require_packages("cpu")


class Nvml(ModuleType):
    """A stand-in for pynvml, and for a driver that does not know the temperature."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, nvmlMemory_v2 = 1, 2, 0, "v2"

    def __init__(self, works: bool) -> None:
        super().__init__("pynvml")
        self.works, self.asked = works, []

    def nvmlInit(self) -> None:
        if not self.works:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self.asked.append(index)
        return index

    def nvmlDeviceGetName(self, gpu: Any) -> str:
        return "Some GPU"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "600.1"

    def nvmlDeviceGetMemoryInfo(self, gpu: Any, version: str) -> Any:
        assert version == self.nvmlMemory_v2
        return SimpleNamespace(total=2**34, used=2**30 + 5)

    def nvmlDeviceGetPowerManagementLimit(self, gpu: Any) -> int:
        return 700_000

    def nvmlDeviceGetMaxClockInfo(self, gpu: Any, kind: int) -> int:
        return 1980 * kind

    def nvmlDeviceGetClockInfo(self, gpu: Any, kind: int) -> int:
        return 345 * kind

    def nvmlDeviceGetTemperature(self, gpu: Any, sensor: int) -> int:
        raise self.NVMLError("not supported")


def test_a_gpu_is_described_with_the_units_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch):
    nvml = Nvml(works=True)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert read_gpu("GPU-7") == {
        "name": "Some GPU",
        "driver": "600.1",
        "memory_total": "16384 MiB",
        "memory_used": "1024 MiB",
        "power_limit": "700.00 W",
        "clock_sm_max": "1980 MHz",
        "clock_memory_max": "3960 MHz",
        "clock_sm_now": "345 MHz",
        "clock_memory_now": "690 MHz",
        "temperature": "[N/A]",
    }
    assert smi_used_bytes() == 2**30
    assert nvml.asked == ["GPU-7", 0]


@pytest.mark.parametrize("pynvml", [None, Nvml(works=False)], ids=["no package", "no driver"])
def test_without_nvml_nothing_is_known_of_a_gpu(pynvml: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    assert read_gpu() is None and smi_used_bytes() is None
