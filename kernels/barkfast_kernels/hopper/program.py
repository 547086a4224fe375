"""Compile CUDA source to kernels at run time, with NVIDIA's NVRTC and bindings; torch's CUDA builds include both."""

import ctypes
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton.runtime.cache import get_cache_manager

from barkfast_kernels.driver import prefer_shared

logger = logging.getLogger(__name__)

Argument = Tensor | int | float | None
# The first bytes of a cubin.
ELF = b"\x7fELF"


class ProgramError(RuntimeError):
    """The compiler or the driver failed; the message holds its error."""


def compile_cubin(source: str, options: Sequence[str], name: str) -> bytes:
    """Machine code of CUDA C++ `source`, cached on disk beside Triton's for the next process; needs no GPU.

    Raises: ProgramError with the compiler's log; ImportError without the bindings.
    """
    from cuda.bindings import nvrtc

    version = _take(nvrtc.nvrtcVersion())
    key = hashlib.sha256(repr((version, source, tuple(options))).encode()).hexdigest()
    return kept(key, f"{name}.cubin", lambda: _compile(source, options, name))


def kept(key: str, name: str, build: Callable[[], bytes]) -> bytes:
    """A cubin from Triton's cache folder, else built and stored there; if the cache cannot be used, only built.

    Args:
        key: hexadecimal digest of everything that it is built from.
    """
    try:
        folder = get_cache_manager(key)
        path = folder.get_file(name)
        found = Path(path).read_bytes() if path else b""
    except (OSError, RuntimeError) as error:
        logger.debug("no cache for compiled kernels: %s", error)
        return build()
    if found.startswith(ELF):
        return found
    cubin = build()
    try:
        folder.put(cubin, name, binary=True)
    except OSError as error:
        logger.debug("the compiled kernels are not kept: %s", error)
    return cubin


def _compile(source: str, options: Sequence[str], name: str) -> bytes:
    from cuda.bindings import nvrtc

    program = _take(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], []))
    try:
        flags = [option.encode() for option in options]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
        if error:
            log = b" " * _take(nvrtc.nvrtcGetProgramLogSize(program))
            _take(nvrtc.nvrtcGetProgramLog(program, log))
            raise ProgramError(f"{name} does not compile: {log.decode(errors='replace').strip()}")
        cubin = b" " * _take(nvrtc.nvrtcGetCUBINSize(program))
        _take(nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return cubin


def _take(result: tuple[Any, ...]) -> Any:
    """The results of a call without its status. Raises: ProgramError if the status is not 0, success in every enum."""
    error, *values = result
    if error:
        raise ProgramError(f"{error!r}")
    return values[0] if values else None


class Program:
    """A cubin loaded on the current device, in the context that torch created."""

    def __init__(self, cubin: bytes) -> None:
        from cuda.bindings import driver

        self._module = _take(driver.cuModuleLoadData(cubin))
        self.room = torch.cuda.get_device_properties(torch.cuda.current_device()).shared_memory_per_block_optin
        # The largest size requested for each function: all its users share one limit.
        self._most_bytes: dict[str, int] = {}

    def kernel(self, name: str, *, threads: int, shared_bytes: int, carveout: int | None) -> "Kernel":
        """One of its functions, for blocks of `threads` threads with `shared_bytes` of dynamic shared memory.

        Args:
            carveout: see barkfast_kernels.variant.
        """
        from cuda.bindings import driver

        function = _take(driver.cuModuleGetFunction(self._module, name.encode()))
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._most_bytes[name] = max(shared_bytes, self._most_bytes.get(name, 0))
        _take(driver.cuFuncSetAttribute(function, attribute, self._most_bytes[name]))
        if carveout is not None:
            prefer_shared(function, carveout)
        return Kernel(function, threads, shared_bytes)


class Kernel:
    """One kernel of a program."""

    def __init__(self, function: Any, threads: int, shared_bytes: int) -> None:
        self._function, self.threads, self.shared_bytes = function, threads, shared_bytes

    def launch(self, grid: tuple[int, int, int], args: Sequence[Argument], *, pdl: bool) -> None:
        """Launch on torch's current stream; None is a null pointer.

        Args:
            pdl: whether it may begin before the previous kernel has ended (programmatic dependent launch).
        """
        from cuda.bindings import driver

        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = self.threads, 1, 1
        config.sharedMemBytes = self.shared_bytes
        config.hStream = torch.cuda.current_stream().cuda_stream
        if pdl:
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs, config.numAttrs = [attribute], 1
        values = tuple(arg.data_ptr() if isinstance(arg, Tensor) else arg or 0 for arg in args)
        _take(driver.cuLaunchKernelEx(config, self._function, (values, tuple(map(ctype_of, args))), 0))


def ctype_of(arg: Argument) -> Any:
    """The C type of an argument."""
    if isinstance(arg, Tensor) or arg is None:
        return ctypes.c_void_p
    return ctypes.c_int if isinstance(arg, int) else ctypes.c_float
