"""The engines, whether each is available here, and why."""

import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass

import torch

from barkfast.config import truthy
from barkfast.errors import InputError
from barkfast.native import native_status

MIN_TRITON = (3, 4)
MIN_CAPABILITY = (7, 0)


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run the networks, and whether it is available here."""

    name: str
    available: bool
    reason: str


def describe_engines(device: str = "cuda") -> list[Engine]:
    """List all engines: whether each is available on `device` ("cuda" means the current CUDA device), and why."""
    return [
        Engine("torch", True, f"plain torch {torch.__version__}, any device"),
        _describe_cpu(),
        _describe_cuda(device),
    ]


def _describe_cpu() -> Engine:
    present, reason = native_status()
    if not present:
        return Engine("cpu", False, f"{reason}; the torch engine serves instead")
    from barkfast.runtime.cpu.threads import count_threads

    try:
        return Engine("cpu", True, f"instructions: {choose_isa()}; threads: {count_threads()}")
    except InputError as error:
        return Engine("cpu", False, str(error))


def choose_isa() -> str:
    """The instruction-set level (ISA) of the cpu engine: $BARKFAST_CPU_ISA, else the best that this CPU supports.

    Raises: InputError for a level that is unknown or that this CPU does not support; EngineError without the native
    module.
    """
    from barkfast.runtime.cpu.packing import require_native

    try:
        return require_native().choose_isa()
    except ValueError as error:
        raise InputError(str(error)) from error


def _describe_cuda(device: str) -> Engine:
    def no(reason: str) -> Engine:
        return Engine("cuda", False, f"{reason}; the torch engine serves instead")

    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return no("Triton is not installed (torch's CUDA builds bring it along; else pip install 'triton>=3.4')")
    if tuple(map(int, version.split(".")[:2])) < MIN_TRITON:
        return no(f"Triton {version} is too old, 3.4 or newer is needed")
    if importlib.util.find_spec("barkfast_kernels") is None:
        return no("the package barkfast_kernels is missing: install barkfast again")
    if torch.version.hip is not None:
        return no("on AMD GPUs (ROCm) the kernels have not been tried")
    if torch.cuda.device_count() > 0:
        major, minor = torch.cuda.get_device_capability(device if device.startswith("cuda") else None)
        if (major, minor) < MIN_CAPABILITY:
            return no(f"compute capability {major}.{minor} is too old for Triton")
        return Engine("cuda", True, f"Triton {version}, CUDA {torch.version.cuda}, compute capability {major}.{minor}")
    if truthy(os.environ.get("TRITON_INTERPRET")):
        return Engine("cuda", True, f"Triton {version}'s interpreter on the CPU: for tests, very slow")
    return no("torch sees no CUDA device")
