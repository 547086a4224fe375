"""How many cores this process may use, by its CPU affinity and its cgroups' quota."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def physical_cores(root: Path = ROOT) -> int:
    """Physical cores that this process may use; at least 1.

    Args:
        root: the folder with the system's /proc and /sys.
    """
    quota = cpu_quota(root)
    cores = _allowed_cores(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def logical_cpus() -> int:
    """Hardware threads that this process may run on."""
    return len(_allowed_cpus())


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPU time, in cores, that the tightest of this process's cgroups grants; None without a limit."""
    quotas = [quota for folder in _cgroup_folders(root) if (quota := _read_quota(folder)) is not None]
    return min(quotas, default=None)


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _allowed_cores(root: Path) -> int:
    """Physical cores of the hardware threads that this process may run on."""
    if sys.platform == "darwin":
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "hw.physicalcpu"]
            return max(1, int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout))
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    # Hardware threads of one core list the same siblings.
    return len({_read(root / topology.format(cpu)) or str(cpu) for cpu in _allowed_cpus()})


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Folders of this process's cgroups, version 2 and 1, and of their visible parents."""
    own: dict[str, PurePosixPath] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "cpu" in controllers.split(","):
            own["cgroup2" if number == "0" else "cgroup"] = PurePosixPath(path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        fields, (kind, *options) = head.split(), tail.split() or [""]
        if kind not in own or len(fields) < 5 or (kind == "cgroup" and "cpu" not in options[-1].split(",")):
            continue
        mounted, place, own_path = PurePosixPath(fields[3]), root / fields[4].lstrip("/"), own[kind]
        # In a container the path may exist only on the host.
        within = own_path.relative_to(mounted) if own_path.is_relative_to(mounted) else PurePosixPath()
        yield from (place / part for part in (within, *within.parents))


def _read_quota(folder: Path) -> float | None:
    """CPU time, in cores, that one cgroup grants; None without a limit."""
    words = _read(folder / "cpu.max").split()
    if not words:
        words = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    with suppress(ValueError):
        quota, period = map(float, words)
        return quota / period if quota > 0 and period > 0 else None
    # "max", or no file.
    return None


def _read(path: Path) -> str:
    """A small file's text; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
