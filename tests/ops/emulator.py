"""CUDA kernels on the CPU: a C++ compiler compiles their sources with tests/ops/emulated/device.h as the device."""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from barkfast_kernels.hopper import Shape
from barkfast_kernels.hopper.ops import FOLDER
from barkfast_kernels.hopper.program import Argument, ctype_of

HERE = Path(__file__).parent / "emulated"
# Shared memory of a block on an H100.
SHARED_BYTES = 227 * 1024


def find_compiler() -> str | None:
    """The path of a C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "c++"))


@cache
def build(shape: Shape) -> ctypes.CDLL:
    """Compile the kernels for one shape, once per process."""
    command = [find_compiler() or "c++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w"]
    # With instructions for fused multiply-add and half precision, instead of calls.
    command += ["-march=native"] if platform.machine() == "x86_64" else []
    command += ["-U_FORTIFY_SOURCE", f"-I{FOLDER}", *shape.definitions, f"-DSHARED_BYTES={SHARED_BYTES}"]
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, "step.so")
        subprocess.run([*command, "-o", library, str(HERE / "main.cpp")], check=True, timeout=120)
        return ctypes.CDLL(library)


class Emulator:
    """A program whose kernels run on the CPU; it has the interface of barkfast_kernels.hopper.program.Program."""

    room = SHARED_BYTES

    def __init__(self, shape: Shape) -> None:
        self.library = build(shape)

    def kernel(self, name: str, *, threads: int, shared_bytes: int, carveout: int | None) -> "EmulatedKernel":
        assert shared_bytes <= SHARED_BYTES
        return EmulatedKernel(self.library, name, threads)

    def take_prefetched(self) -> tuple[int, int, int]:
        """First address, end and number of the bytes prefetched into the L2 cache since the last call."""
        found = (ctypes.c_ulonglong * 3)()
        self.library.take_prefetched(found)
        return found[0], found[1], found[2]

    @contextmanager
    def changing(self, *changes: tuple[Tensor, Tensor]) -> Iterator[None]:
        """Within the block, each first tensor holds its second's values until a kernel waits for the previous one."""
        kept = [(tensor, before, tensor.clone()) for tensor, before in changes]
        for tensor, before, after in kept:
            pointers = [ctypes.c_void_p(t.data_ptr()) for t in (tensor, before, after)]
            self.library.change_while_waiting(*pointers, ctypes.c_ulonglong(tensor.nbytes))
        try:
            yield
        finally:
            self.library.change_nothing()

    def begin_with_block(self, x: int) -> None:
        """From now on start each row of a grid's blocks with number `x`, and wrap around."""
        self.library.begin_with_block(x)


class EmulatedKernel:
    """One kernel of the emulated program."""

    def __init__(self, library: ctypes.CDLL, name: str, threads: int) -> None:
        self.library, self.name, self.threads = library, name, threads

    def launch(self, grid: tuple[int, int, int], args: tuple[Argument, ...], *, pdl: bool) -> None:
        assert all(not isinstance(arg, Tensor) or (arg.device == torch.device("cpu")) for arg in args)
        values = [arg.data_ptr() if isinstance(arg, Tensor) else arg or 0 for arg in args]
        held = [ctype_of(arg)(value) for arg, value in zip(args, values, strict=True)]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        assert self.library.run(self.name.encode(), (ctypes.c_int * 3)(*grid), self.threads, pointers) == 0
