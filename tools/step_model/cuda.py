"""Compile CUDA source to kernels for analysis, with the names and values of their arguments."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from barkfast_kernels.hopper.program import compile_cubin
from tools.step_model.loads import Kernel
from tools.step_model.sass import PARAMETERS, Code

CAPABILITY = (9, 0)
_ARCHITECTURE = f"sm_{CAPABILITY[0]}{CAPABILITY[1]}"


@dataclass(frozen=True)
class CudaLaunch:
    """One launch of a CUDA kernel."""

    name: str
    grid: tuple[int, int, int]
    args: tuple[Any, ...]
    threads: int
    shared_bytes: int


class CudaRecorder:
    """Stands in for the program on a device: records its launches in the same list as Triton's.

    Attributes:
        room: bytes of shared memory that a block can have, as on an H100.
    """

    room = 227 * 1024

    def __init__(self, launches: list[Any]) -> None:
        self.launches = launches

    def kernel(self, name: str, *, threads: int, shared_bytes: int, **_: Any) -> "CudaRecorder._Kernel":
        """See barkfast_kernels.hopper.ops.Loader."""
        return self._Kernel(self.launches, name, threads, shared_bytes)

    @dataclass(frozen=True)
    class _Kernel:
        launches: list[Any]
        name: str
        threads: int
        shared_bytes: int

        def launch(self, grid: tuple[int, int, int], args: tuple[Any, ...], *, pdl: bool) -> None:
            """See barkfast_kernels.hopper.ops.Launchable."""
            self.launches.append(CudaLaunch(self.name, grid, args, self.threads, self.shared_bytes))


def tools_folder() -> Path:
    """The folder of Triton's nvdisasm and cuobjdump.

    Raises: ImportError without Triton.
    """
    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        raise ImportError("nvdisasm comes with triton, which is not installed (the extra `triton`)")
    return Path(spec.origin).parent / "backends" / "nvidia" / "bin"


def compiler() -> str:
    """The installed CUDA compiler with its version; "" if there is none."""
    if nvrtc_version():
        return f"nvrtc {nvrtc_version()}"
    nvcc = shutil.which("nvcc")
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout if nvcc else ""
    release = re.search(r"release ([\d.]+)", text)
    return f"nvcc {release[1]}" if release else ""


def compile_cuda(source: str, definitions: Sequence[str] = ()) -> bytes:
    """Machine code of CUDA C++ `source`, by NVRTC if it is installed, else by the toolkit's compiler.

    Raises: RuntimeError without a compiler, or if it fails, with its output.
    """
    if nvrtc_version():
        return compile_cubin(source, [f"--gpu-architecture={_ARCHITECTURE}", "--std=c++17", *definitions], "source.cu")
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise RuntimeError("neither NVRTC (cuda-bindings, nvidia-cuda-nvrtc) nor nvcc is installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.cu")
        path.write_text(source, encoding="utf-8")
        command = [nvcc, "-cubin", f"-arch={_ARCHITECTURE}", "-std=c++17", *definitions]
        command += ["-o", f"{folder}/cubin", str(path)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"nvcc refuses: {result.stderr.strip()}")
        return Path(folder, "cubin").read_bytes()


@cache
def nvrtc_version() -> str:
    """The version of NVIDIA's run-time compiler; "" if it is not installed."""
    try:
        from cuda.bindings import nvrtc

        error, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):
        return ""
    return "" if error else f"{major}.{minor}"


def describe_cuda(code: Code, source: str, args: Sequence[Any] = ()) -> Kernel:
    """A kernel with its parameters' names, from the source, and their launch values; without `args`, batch is 1."""
    declared = re.search(rf"\b{code.name}\(([^)]*)\)\s*{{", source)
    parameters = [part.strip() for part in declared[1].split(",")] if declared else []
    names = {re.split(r"[\s*]+", parameter)[-1]: parameter for parameter in parameters}
    sizes = {name: 8 if "*" in text or re.search(r"\bu64\b", text) else 4 for name, text in names.items()}
    values = dict(zip(names, args, strict=False)) or {"batch": 1}
    pointers: dict[int, str] = {}
    numbers: dict[int, int] = {}
    for name, offset in offsets(sizes):
        value = values.get(name)
        if "*" in names[name]:
            pointers[offset] = name
            if value is None and args:
                numbers |= {offset: 0, offset + 4: 0}
        elif isinstance(value, int):
            numbers[offset] = value
    return Kernel(code, pointers, numbers)


def offsets(sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The arguments' offsets in the constant bank."""
    at = PARAMETERS
    for name, size in sizes.items():
        at = -(-at // size) * size
        yield name, at
        at += size
