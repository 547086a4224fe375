"""The processor: its name, cores and caches, how busy it is, and what the native module makes of it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from barkfast.cores import physical_cores
from barkfast.errors import BarkfastError
from barkfast.native import load_native, native_status
from barkfast.runtime import engines
from barkfast.runtime.cpu import threads
from barkfast.runtime.cpu.levels import name_cpu

MEMINFO = Path("/proc/meminfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def describe_cpu() -> dict[str, Any]:
    """As the system tells it; None for what it does not."""
    native = load_native()
    name, cores = read_model(), count_cores()
    return {
        "name": f"{name}, {cores} cores",
        "model": name,
        "cores": cores,
        "logical_cores": os.cpu_count(),
        "isa": _choose_isa(),
        "isas": [] if native is None else native.supported_isas(),
        "native": native_status()[1],
        "caches": read_caches(),
        "memory_bytes": read_memory("MemTotal"),
        "governor": read_line(GOVERNOR),
        "huge_pages": read_line(HUGE_PAGES),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch_parallel": next(
            (line.strip() for line in torch.__config__.parallel_info().splitlines() if "OpenMP" in line), None
        ),
        "mkldnn": torch.backends.mkldnn.is_available(),
    }


def _choose_isa() -> str | None:
    """The level that the native code runs at; None without it, or where one is asked for that is not there."""
    try:
        return engines.choose_isa()
    except BarkfastError:
        return None


def count_cores() -> int:
    """Physical cores that this process may use, as the engine counts them."""
    return physical_cores()


def count_threads() -> int:
    """Threads that the cpu engine uses; those that torch uses where there is no such engine."""
    try:
        return threads.count_threads()
    except BarkfastError:
        return torch.get_num_threads()


def read_line(path: Path) -> str | None:
    """A small file's text; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_model() -> str:
    """The processor's name."""
    on_mac = output_of("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return on_mac or name_cpu()


def output_of(*command: str, cwd: Path | None = None) -> str | None:
    """What a command printed; None if it could not."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def read_caches() -> dict[str, str]:
    """Size of each cache that the first core has: {"L2": "1024K", ...}."""
    caches = {}
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = (read_line(folder / name) for name in ("level", "type", "size"))
        if level and size:
            caches[f"L{level}{'i' if kind == 'Instruction' else ''}"] = size
    return caches


def read_memory(field: str) -> int | None:
    """Bytes of a line of Linux' meminfo, such as MemTotal or MemAvailable; of all memory on other systems."""
    found = re.search(rf"^{field}:\s*(\d+) kB", read_line(MEMINFO) or "", re.MULTILINE)
    if found:
        return int(found.group(1)) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
