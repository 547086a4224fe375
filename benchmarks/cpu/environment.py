"""Which processor, how busy, and which instruction-set level the numbers are from."""

import os
import re
from pathlib import Path
from typing import Any

import torch

from barkfast.native import load_native, native_status

CPUINFO = Path("/proc/cpuinfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
SMOKE_DEVICE = "cpu (smoke)"


def describe_cpu(*, smoke: bool) -> dict[str, Any]:
    """As the system tells it; None for what it does not."""
    native = load_native()
    return {
        "name": SMOKE_DEVICE if smoke else f"{read_model() or 'unknown CPU'}, {count_cores()} cores",
        "model": read_model(),
        "cores": count_cores(),
        "logical_cores": os.cpu_count(),
        "isa": None if native is None else native.choose_isa(),
        "isas": [] if native is None else native.supported_isas(),
        "native": native_status()[1],
        "caches": read_caches(),
        "memory_bytes": read_memory(),
        "governor": read_line(GOVERNOR),
        "huge_pages": read_line(HUGE_PAGES),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch_parallel": next(
            (line.strip() for line in torch.__config__.parallel_info().splitlines() if "OpenMP" in line), None
        ),
        "mkldnn": torch.backends.mkldnn.is_available(),
    }


def count_cores() -> int:
    """Physical cores that this process may use, as the engine counts them; all that the system has without it."""
    native = load_native()
    return (os.cpu_count() or 1) if native is None else native.physical_cores()


def read_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def read_model() -> str | None:
    """The processor's name; family and model beside it, for virtual machines hide the rest."""
    text = read_line(CPUINFO) or ""

    def field(name: str) -> str | None:
        found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
        return found and found.group(1).strip()

    name, family, model = field("model name"), field("cpu family"), field("model")
    return f"{name} (family {family}, model {model})" if name and family and model else name


def read_caches() -> dict[str, str]:
    """Size of each cache that the first core has: {"L2": "1024K", ...}."""
    caches = {}
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = (read_line(folder / name) for name in ("level", "type", "size"))
        if level and size:
            caches[f"L{level}{'i' if kind == 'Instruction' else ''}"] = size
    return caches


def read_memory() -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", read_line(Path("/proc/meminfo")) or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None
