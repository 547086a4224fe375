"""Which machine, driver, versions and sources numbers are from."""

import datetime
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from barkfast.bench import processor
from barkfast.bench.processor import output_of, read_line, read_memory
from barkfast.bench.roofline import DATASHEET

PACKAGES = (
    *("torch", "triton", "numpy", "transformers", "tokenizers", "safetensors"),
    *("tts-webui.bark", "encodec", "pytest"),
)
PACKAGE = Path(__file__).resolve().parents[1]
# Of a checkout: what was timed, and what timed it.
SOURCES, SUFFIXES = ("barkfast", "kernels", "csrc", "benchmarks"), {".py", ".cpp", ".h", ".cu", ".cuh"}
# What a container may use, what it uses, and for what: control groups of version 2, then of version 1.
CONTROL_GROUP = Path("/sys/fs/cgroup")
GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
SMI_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "memory_total": "memory.total",
    "memory_used": "memory.used",
    "power_limit": "power.limit",
    "clock_sm_max": "clocks.max.sm",
    "clock_memory_max": "clocks.max.memory",
    "clock_sm_now": "clocks.sm",
    "clock_memory_now": "clocks.mem",
    "temperature": "temperature.gpu",
}


def describe_machine(device: str) -> dict[str, Any]:
    """Everything about this machine as far as it can be found out; what cannot is None.

    Args:
        device: cpu, cuda, cuda:N or mps; it is described under "device", the processor under "cpu" in any workload.
    """
    import barkfast

    cpu = processor.describe_cpu()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "barkfast": barkfast.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version_of(name) for name in PACKAGES},
        "source": describe_source(),
        "threads": processor.count_threads(),
        "device": dict(cpu) if device == "cpu" else describe_device(device),
        "cpu": cpu,
    }


def version_of(package: str) -> str | None:
    """Of an installed package; None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_source() -> dict[str, Any]:
    """The commit, of a checkout that git can be asked about, and in any case a digest of the code that was timed."""
    root = PACKAGE.parent
    # An installed package may lie in a folder of somebody else's repository.
    checkout = (root / ".git").exists() and (root / "pyproject.toml").is_file()
    commit = status = None
    if checkout:
        git = ("git", "-c", f"safe.directory={root}")
        commit = output_of(*git, "rev-parse", "HEAD", cwd=root)
        status = output_of(*git, "status", "--porcelain", cwd=root)
    return {
        "commit": commit,
        "dirty": None if commit is None or status is None else bool(status),
        "digest": _digest([root / folder for folder in SOURCES] if checkout else _package_folders()),
    }


def _package_folders() -> list[Path]:
    kernels = importlib.util.find_spec("barkfast_kernels")
    return [PACKAGE, *(Path(folder) for folder in (kernels and kernels.submodule_search_locations) or ())]


def _digest(folders: list[Path]) -> str:
    """Of all sources in the folders, by their names from there on and their content."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def memory_available() -> int:
    """Bytes that this process may still allocate, its container's limit included; sys.maxsize if nobody says."""
    free = read_memory("MemAvailable")
    room = [sys.maxsize if free is None else free]
    for names in GROUP_FILES:
        limit, used, stat = (read_line(CONTROL_GROUP / name) or "" for name in names)
        if limit.isdigit() and used.isdigit():
            # Files that were read stay in memory until it is needed, and count as used.
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            room.append(int(limit) - int(used) + (int(cached.group(1)) if cached else 0))
    return max(0, min(room))


def device_memory(device: str) -> int | None:
    """Bytes that are still free on a GPU; None for the CPU, and for devices that do not say."""
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None


def describe_device(device: str) -> dict[str, Any]:
    """A GPU; its name is "unknown", beside the error, where it does not answer: versions are still worth noting."""
    if not device.startswith("cuda"):
        return {"name": f"{device}, {processor.read_model()}"}
    try:
        return _describe_cuda(device)
    except Exception as error:
        return {"name": "unknown", "error": f"{type(error).__name__}: {error}"}


def _describe_cuda(device: str) -> dict[str, Any]:
    """By torch and by nvidia-smi."""
    properties = torch.cuda.get_device_properties(device)
    bandwidth, rate = DATASHEET.get(properties.name, (None, None))
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "datasheet_gb_per_s": bandwidth,
        "datasheet_bf16_tflop_per_s": rate,
        "nvidia_smi": query_smi(SMI_FIELDS, smi_name(device)),
        "python_executable": Path(sys.executable).name,
    }


def smi_name(device: str) -> str:
    """The GPU as nvidia-smi names it: CUDA_VISIBLE_DEVICES may have given it another number here."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{uuid}" if uuid else str(torch.device(device).index or 0)


def query_smi(fields: dict[str, str], device: str = "0") -> dict[str, str] | None:
    """Fields of one GPU, only read; None where nvidia-smi cannot say."""
    if shutil.which("nvidia-smi") is None:
        return None
    line = output_of("nvidia-smi", "-i", device, f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader")
    if not line:
        return None
    return dict(zip(fields, (value.strip() for value in line.splitlines()[0].split(",")), strict=False))


def smi_used_bytes(device: str = "0") -> int | None:
    """Memory in use on a whole GPU, as nvidia-smi says; every process and the driver's own included."""
    answer = query_smi({"used": "memory.used"}, device)
    number = (answer or {}).get("used", "").split(" ")[0]
    return int(number) * 2**20 if number.isdigit() else None
