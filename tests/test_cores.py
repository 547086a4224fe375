"""The number of usable cores as the system reports it: hardware threads, cgroups v1 and v2, quotas."""

import os
from pathlib import Path

import pytest

from barkfast import cores
from barkfast.cores import cpu_quota, logical_cpus, physical_cores

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
OTHER = "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw"


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_allowed_cpus", lambda: set(range(8)))
    monkeypatch.setattr(cores.sys, "platform", "linux")


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


def siblings(pairs: list[str]) -> dict[str, str]:
    path = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return {path.format(cpu): pair for cpu, pair in enumerate(pairs)}


def cgroup(mounts: str, own: str, **quotas: str) -> dict[str, str]:
    """The mounted cgroups, which of them a process is in, and files below /sys/fs/cgroup."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in quotas.items()}
    return {"proc/self/mountinfo": f"{OTHER}\n{mounts}", "proc/self/cgroup": f"4:memory:/box\n{own}"} | files


def test_a_core_with_two_hardware_threads_is_one(tmp_path: Path):
    assert physical_cores(plant(tmp_path, siblings(["0,4", "1,5", "2,6", "3,7"] * 2))) == 4
    # Without topology files each CPU counts.
    assert physical_cores(tmp_path / "elsewhere") == 8


@pytest.mark.parametrize(
    ("files", "quota", "n"),
    [
        (cgroup(V2.format(root="/"), "0::/", **{"cpu.max": "150000 100000"}), 1.5, 2),
        (cgroup(V2.format(root="/"), "0::/", **{"cpu.max": "max 100000"}), None, 8),
        # Its own cgroup, or one above it, whichever is tighter.
        (cgroup(V2.format(root="/"), "0::/a/b", **{"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}), 2, 2),
        (
            cgroup(V2.format(root="/"), "0::/a/b", **{"a/cpu.max": "900000 100000", "a/b/cpu.max": "50000 100000"}),
            0.5,
            1,
        ),
        # In a container: the cgroup has the path that the host sees.
        (cgroup(V2.format(root="/docker/9f"), "0::/docker/9f", **{"cpu.max": "300000 100000"}), 3, 3),
        (cgroup(V2.format(root="/docker/9f"), "0::/docker/9f/in", **{"in/cpu.max": "100000 100000"}), 1, 1),
        (cgroup(V2.format(root="/"), "0::/../../elsewhere", **{"cpu.max": "300000 100000"}), 3, 3),
        (
            cgroup(
                V1.format(root="/"),
                "3:cpu,cpuacct:/box",
                **{"cpu,cpuacct/box/cpu.cfs_quota_us": "400000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"},
            ),
            4,
            4,
        ),
        (
            cgroup(
                V1.format(root="/box"),
                "3:cpu,cpuacct:/box",
                **{"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            ),
            None,
            8,
        ),
        # A quota above the number of cores.
        (cgroup(V2.format(root="/"), "0::/", **{"cpu.max": "9900000 100000"}), 99, 8),
        # Files without usable content.
        (cgroup(V2.format(root="/"), "0::/", **{"cpu.max": "many words here"}), None, 8),
        (cgroup(V2.format(root="/"), "0::/", **{"cpu.max": "100000 0"}), None, 8),
        ({"proc/self/cgroup": "what\n:\n0", "proc/self/mountinfo": "1\n - \n - cgroup2\n1 2 3 4 5 - cgroup2"}, None, 8),
        ({}, None, 8),
    ],
)
def test_no_more_than_cgroups_grant(files: dict[str, str], quota: float | None, n: int, tmp_path: Path):
    assert cpu_quota(plant(tmp_path, files)) == quota
    assert physical_cores(tmp_path) == n


def test_this_machine():
    assert 1 <= physical_cores() <= logical_cpus() == 8


@pytest.mark.parametrize("text", ["10\n", "0\n", "none\n"])
def test_macos(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    command = plant(tmp_path, {"sysctl": f"#!/bin/sh\necho {text}"}) / "sysctl"
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cores.sys, "platform", "darwin")
    assert physical_cores(tmp_path) == {"10\n": 10, "0\n": 1, "none\n": 8}[text]
