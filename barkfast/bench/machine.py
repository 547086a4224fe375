"""The machine that numbers are from: processor, GPU, memory, versions and sources."""

import ctypes
import datetime
import gc
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from barkfast.cores import physical_cores
from barkfast.errors import BarkfastError, InputError
from barkfast.native import load_native, native_status
from barkfast.runtime import engines
from barkfast.runtime.cpu import threads
from barkfast.runtime.cpu.levels import name_cpu

PACKAGES = (
    *("torch", "triton", "numpy", "transformers", "tokenizers", "safetensors"),
    *("tts-webui.bark", "encodec", "pytest"),
)
PACKAGE = Path(__file__).resolve().parents[1]
# Of a checkout: what was timed, and what timed it.
SOURCES, SUFFIXES = ("barkfast", "kernels", "csrc", "benchmarks"), {".py", ".cpp", ".h", ".cu", ".cuh"}
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# What a container may use, what it uses, and for what: control groups of version 2, then of version 1.
CONTROL_GROUP = Path("/sys/fs/cgroup")
GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
# Bandwidth in GB/s and dense bf16 TFLOP/s by the datasheet, under the names the driver gives.
DATASHEET = {
    "NVIDIA H100 80GB HBM3": (3350, 989),
    "NVIDIA H200": (4800, 989),
}
# Of a GPU, with the units of nvidia-smi: how pynvml, given first, reads each from a handle.
GPU_FIELDS: dict[str, Callable[[Any, Any], str]] = {
    "name": lambda nvml, gpu: nvml.nvmlDeviceGetName(gpu),
    "driver": lambda nvml, gpu: nvml.nvmlSystemGetDriverVersion(),
    "memory_total": lambda nvml, gpu: f"{_gpu_memory(nvml, gpu).total // 2**20} MiB",
    "memory_used": lambda nvml, gpu: f"{_gpu_memory(nvml, gpu).used // 2**20} MiB",
    "power_limit": lambda nvml, gpu: f"{nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1e3:.2f} W",
    "clock_sm_max": lambda nvml, gpu: f"{nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)} MHz",
    "clock_memory_max": lambda nvml, gpu: f"{nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM)} MHz",
    "clock_sm_now": lambda nvml, gpu: f"{nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)} MHz",
    "clock_memory_now": lambda nvml, gpu: f"{nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)} MHz",
    "temperature": lambda nvml, gpu: str(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
}
count_cores = physical_cores


def require_packages(device: str) -> None:
    """Raise InputError unless the packages that describe the machine are installed."""
    for module, package in (("psutil", "psutil"), ("pynvml", "nvidia-ml-py")):
        if module == "psutil" or device.startswith("cuda"):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise InputError(
                    f"barkfast bench needs {package}, which cannot be imported ({error}); "
                    "run: pip install 'barkfast[bench]'"
                ) from error


def describe_machine(device: str) -> dict[str, Any]:
    """Everything about this machine as far as it can be found out; what cannot is None.

    Args:
        device: cpu, cuda, cuda:N or mps; it is described under "device", the processor always under "cpu".
    """
    import barkfast

    cpu = describe_cpu()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "barkfast": barkfast.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version_of(name) for name in PACKAGES},
        "source": describe_source(),
        "threads": count_threads(),
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


def describe_cpu() -> dict[str, Any]:
    """The processor; None for what the system does not tell."""
    native = load_native()
    name, cores = read_model(), count_cores()
    openmp = (line.strip() for line in torch.__config__.parallel_info().splitlines() if "OpenMP" in line)
    return {
        "name": f"{name}, {cores} cores",
        "model": name,
        "cores": cores,
        "logical_cores": os.cpu_count(),
        "isa": _choose_isa(),
        "isas": [] if native is None else native.supported_isas(),
        "native": native_status()[1],
        "caches": read_caches(),
        "memory_bytes": system_memory()[0],
        "governor": read_line(GOVERNOR),
        "huge_pages": read_line(HUGE_PAGES),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch_parallel": next(openmp, None),
        "mkldnn": torch.backends.mkldnn.is_available(),
    }


def _choose_isa() -> str | None:
    """The level of the native code; None without it, or if one is asked for that this processor does not have."""
    with suppress(BarkfastError):
        return engines.choose_isa()
    return None


def count_threads() -> int:
    """Threads that the cpu engine uses; those that torch uses where there is no such engine."""
    try:
        return threads.count_threads()
    except BarkfastError:
        return torch.get_num_threads()


def read_line(path: Path) -> str | None:
    """A small file's text; None if it cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
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
    """Size of each cache of the first core: {"L2": "1024K", ...}."""
    caches = {}
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = (read_line(folder / name) for name in ("level", "type", "size"))
        if level and size:
            caches[f"L{level}{'i' if kind == 'Instruction' else ''}"] = size
    return caches


def system_memory() -> tuple[int | None, int | None]:
    """Bytes in all, and bytes that can be allocated; without psutil all count as free."""
    with suppress(ImportError):
        import psutil

        memory = psutil.virtual_memory()
        return memory.total, memory.available
    with suppress(AttributeError, OSError, ValueError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return None, None


def memory_available() -> int:
    """Bytes that this process may still allocate, its container's limit included; sys.maxsize if not known."""
    free = system_memory()[1]
    room = [sys.maxsize if free is None else free]
    for names in GROUP_FILES:
        limit, used, stat = (read_line(CONTROL_GROUP / name) or "" for name in names)
        if limit.isdigit() and used.isdigit():
            # Files that were read stay in memory until it is needed, and count as used.
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            room.append(int(limit) - int(used) + (int(cached.group(1)) if cached else 0))
    return max(0, min(room))


def free_memory(device: str) -> int:
    """Bytes that are free on a GPU; of other devices, `memory_available`."""
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else memory_available()


def describe_device(device: str) -> dict[str, Any]:
    """A GPU; its name is "unknown", beside the error, where it does not answer: versions are still worth noting."""
    if not device.startswith("cuda"):
        return {"name": f"{device}, {read_model()}"}
    try:
        properties = torch.cuda.get_device_properties(device)
    except Exception as error:
        return {"name": "unknown", "error": f"{type(error).__name__}: {error}"}
    bandwidth, rate = DATASHEET.get(properties.name, (None, None))
    # CUDA_VISIBLE_DEVICES may have given it another number here.
    uuid = getattr(properties, "uuid", None)
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
        "nvidia_smi": read_gpu(f"GPU-{uuid}" if uuid else str(torch.device(device).index or 0)),
        "python_executable": Path(sys.executable).name,
    }


def read_gpu(gpu: str = "0") -> dict[str, str] | None:
    """The driver, memory, power and clocks of a GPU; None without nvidia-ml-py, or if the driver does not answer.

    Args:
        gpu: its number, or "GPU-" and its UUID.
    """
    try:
        import pynvml
    except ImportError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        find = pynvml.nvmlDeviceGetHandleByUUID if gpu.startswith("GPU-") else pynvml.nvmlDeviceGetHandleByIndex
        handle = find(gpu if gpu.startswith("GPU-") else int(gpu))
        found = {}
        for name, read in GPU_FIELDS.items():
            found[name] = "[N/A]"
            with suppress(pynvml.NVMLError):
                found[name] = read(pynvml, handle)
        return found
    return None


def _gpu_memory(nvml: Any, handle: Any) -> Any:
    """As nvidia-smi counts it, without what the driver reserves."""
    return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)


def smi_used_bytes(gpu: str = "0") -> int | None:
    """Memory in use on a whole GPU, as nvidia-smi says; every process and the driver's own included."""
    used = (read_gpu(gpu) or {}).get("memory_used", "").removesuffix(" MiB")
    return int(used) * 2**20 if used.isdigit() else None


def tidy() -> None:
    """Free what is no longer used, so that it does not count as memory in use."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def restart_peaks() -> None:
    """Count the peaks from here on; on systems other than Linux the process's remains that since its start."""
    tidy()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def read_peaks() -> dict[str, Any]:
    """The most that this process has had in use: "rss_bytes", mapped files included, and "device_bytes" or None."""
    device = torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else None
    return {"rss_bytes": _peak_resident(), "device_bytes": device}


def _peak_resident() -> int:
    """0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
