"""Which device, driver, versions and sources the numbers are from."""

import datetime
import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "triton", "numpy", "transformers", "tokenizers", "safetensors", "pytest")
SOURCES, SUFFIXES = ("barkfast", "kernels", "csrc", "benchmarks"), {".py", ".cpp", ".h", ".cu"}
SMI_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "memory_total": "memory.total",
    "power_limit": "power.limit",
    "clock_sm_max": "clocks.max.sm",
    "clock_memory_max": "clocks.max.memory",
    "clock_sm_now": "clocks.sm",
    "clock_memory_now": "clocks.mem",
    "temperature": "temperature.gpu",
}


def describe(device: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, as far as it can be found out, around a device's own description; what cannot is None."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "source": describe_source(),
        "device": dict(device),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def output_of(*command: str) -> str | None:
    """What a command printed; None if it could not."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def describe_source() -> dict[str, Any]:
    """The commit, if there is one to be asked, and in any case a digest of the code that was timed."""
    git = ("git", "-c", f"safe.directory={ROOT}")
    commit, status = output_of(*git, "rev-parse", "HEAD"), output_of(*git, "status", "--porcelain")
    digest = hashlib.sha256()
    paths = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    for path in sorted(paths):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "commit": commit,
        "dirty": None if commit is None or status is None else bool(status),
        "digest": digest.hexdigest()[:16],
    }


def try_device() -> dict[str, Any]:
    """Versions are worth writing down even where no device answers."""
    try:
        return describe_device()
    except Exception as error:
        return {"name": "unknown", "error": f"{type(error).__name__}: {error}"}


def describe_device() -> dict[str, Any]:
    """By torch and by nvidia-smi."""
    import torch

    from benchmarks.floors import DATASHEET

    properties = torch.cuda.get_device_properties(0)
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
        "nvidia_smi": query_smi(SMI_FIELDS),
        "python_executable": Path(sys.executable).name,
    }


def query_smi(fields: dict[str, str]) -> dict[str, str] | None:
    """Fields of the first device, only read."""
    if shutil.which("nvidia-smi") is None:
        return None
    line = output_of("nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader")
    if not line:
        return None
    return dict(zip(fields, (value.strip() for value in line.splitlines()[0].split(",")), strict=False))


def smi_used_bytes() -> int | None:
    """Memory in use on the whole device, as nvidia-smi says; every process and the driver's own included."""
    answer = query_smi({"used": "memory.used"})
    number = (answer or {}).get("used", "").split(" ")[0]
    return int(number) * 2**20 if number.isdigit() else None
