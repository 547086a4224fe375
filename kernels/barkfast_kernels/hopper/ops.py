"""The five operations of a layer, with the arguments of the Triton kernels of the same names."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from barkfast_kernels.hopper.constants import HEAD_DEFINITIONS
from barkfast_kernels.hopper.program import Argument, Program, compile_cubin
from barkfast_kernels.slots import POSITION, RUNNING, STATUS, WORDS

# Blocks that share a matrix: about one per multiprocessor of an H100 (132), and a divisor of Bark's sizes.
BLOCKS = 128
# Rows of a matrix that a block may have: a lane of a warp for each.
MOST_ROWS = 32
# Parts of a context. Fewer mean less to be combined by every block of the next kernel.
SPLITS = 4
ATTENTION_THREADS = 256
# Of shared memory, besides what is asked for by size.
RESERVED_BYTES = 8 * 1024
FOLDER = Path(__file__).parent
SOURCES = ("device.cuh", "numbers.cuh", "matrices.cu", "attention.cu", "random.cuh", "head.cu")
TYPES = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat"}


@dataclass(frozen=True)
class Shape:
    """What the source is compiled for.

    Args:
        dtype: of activations, norms and cache.
        int8: whether the layers' matrices are, rather than of that dtype.
    """

    n_embd: int
    n_head: int
    block_size: int
    dtype: torch.dtype
    int8: bool

    @property
    def definitions(self) -> tuple[str, ...]:
        """For the compiler."""
        storage = TYPES[self.dtype]
        values = {
            "EMBD": self.n_embd,
            "HEADS": self.n_head,
            "POSITIONS": self.block_size,
            "SPLITS": SPLITS,
            "QKV_ROWS": self.rows(3 * self.n_embd),
            "OUT_ROWS": self.rows(self.n_embd),
            "FC_ROWS": self.rows(4 * self.n_embd),
            "ATTENTION_THREADS": ATTENTION_THREADS,
            "WORDS": WORDS.value,
            "POSITION": POSITION.value,
            "STATUS": STATUS.value,
            "RUNNING": RUNNING.value,
            **HEAD_DEFINITIONS,
            "Storage": storage,
            "Weight": "Int8" if self.int8 else storage,
        }
        return tuple(f"-D{name}={value}" for name, value in values.items())

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    def rows(self, n_out: int) -> int:
        """Rows that a block takes of a matrix with `n_out`."""
        return min(MOST_ROWS, -(-n_out // BLOCKS))

    def matrix_bytes(self, n_out: int, n_in: int) -> int:
        """Of a block's rows."""
        return self.rows(n_out) * n_in * (1 if self.int8 else self.dtype.itemsize)

    @property
    def attention_bytes(self) -> int:
        """Of a split's keys and values."""
        return 2 * (self.block_size // SPLITS) * self.head_dim * self.dtype.itemsize

    @property
    def most_bytes(self) -> int:
        """Of shared memory, by the block that takes most."""
        largest = max(self.matrix_bytes(4 * self.n_embd, self.n_embd), self.matrix_bytes(self.n_embd, 4 * self.n_embd))
        return max(largest, self.attention_bytes) + RESERVED_BYTES

    def why_not(self) -> str | None:
        """Why there are no kernels for it, or None."""
        if self.n_embd % 128 or self.n_embd > 1024:
            return f"n_embd is {self.n_embd}, not a multiple of 128 up to 1024"
        # 16 bytes of a position by each lane, and as many positions at once as there are lanes left.
        lanes = self.head_dim * self.dtype.itemsize // 16
        if self.head_dim not in (32, 64, 128) or self.block_size % (SPLITS * ATTENTION_THREADS // lanes):
            return f"heads of {self.head_dim} channels and {self.block_size} positions are not among what they serve"
        return None


def why_not(shape: Shape, device: torch.device) -> str | None:
    """Why these kernels cannot serve such a network on a device, or None."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return "they need compute capability 9.0 or newer"
    room = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    if shape.most_bytes > room:
        return f"a block needs {shape.most_bytes} bytes of shared memory and can have {room}"
    try:
        from cuda.bindings import driver, nvrtc  # noqa: F401
    except ImportError as error:
        return f"cuda-bindings cannot be imported: {error}"
    return shape.why_not()


def compile_step(shape: Shape, capability: tuple[int, int]) -> bytes:
    """Machine code for a device of that compute capability; needs no GPU.

    Errors: ProgramError; ImportError without NVIDIA's bindings.
    """
    architecture = f"--gpu-architecture=sm_{capability[0]}{capability[1]}"
    return compile_cubin(read_source(), [architecture, "--std=c++17", *shape.definitions], "layer.cu")


def read_source() -> str:
    """All of it as one."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SOURCES)


@cache
def _program(shape: Shape, device_index: int) -> Program:
    return Program(compile_step(shape, torch.cuda.get_device_capability(device_index)))


class Launchable(Protocol):
    """A kernel, on a device or emulated."""

    def launch(self, grid: tuple[int, int, int], args: tuple[Argument, ...], *, pdl: bool) -> None:
        """See program.Kernel."""


class Loader(Protocol):
    """Where kernels come from."""

    def kernel(self, name: str, *, threads: int, shared_bytes: int) -> Launchable:
        """See program.Program."""


class HopperOps:
    """The operations for networks of one shape.

    Args:
        program: None for the current device's.

    Errors: ProgramError if the compiler or the driver refuse.
    """

    splits = SPLITS

    def __init__(self, shape: Shape, program: Loader | None = None) -> None:
        if program is None:
            program = _program(shape, torch.cuda.current_device())
        self.shape, width = shape, shape.n_embd

        def kernel(name: str, n_out: int, n_in: int) -> tuple[Launchable, int]:
            made = program.kernel(name, threads=width // 4, shared_bytes=shape.matrix_bytes(n_out, n_in))
            return made, -(-n_out // shape.rows(n_out))

        self._qkv = kernel("norm_qkv", 3 * width, width)
        self._out = kernel("attention_out", width, width)
        self._fc = kernel("norm_fc_gelu", 4 * width, width)
        self._proj = kernel("proj_residual", width, 4 * width)
        self._attention = program.kernel(
            "decode_attention", threads=ATTENTION_THREADS, shared_bytes=shape.attention_bytes
        )
        self._scale = math.log2(math.e) / math.sqrt(shape.head_dim)

    def norm_qkv(self, *args: Tensor | None, pdl: bool) -> None:
        """With the arguments of barkfast_kernels.norm_qkv, in order."""
        self._multiply(self._qkv, args, pdl)

    def decode_attention(self, *args: Tensor, pdl: bool) -> None:
        """With those of barkfast_kernels.decode_attention; split s is positions s * chunk to (s + 1) * chunk."""
        *_, rows, _ = args
        self._attention.launch((SPLITS, self.shape.n_head, len(rows)), (*args, self._scale), pdl=pdl)

    def attention_out(self, *args: Tensor | None, pdl: bool) -> None:
        """With those of barkfast_kernels.attention_out."""
        self._multiply(self._out, args, pdl)

    def norm_fc_gelu(self, *args: Tensor | None, pdl: bool) -> None:
        """With those of barkfast_kernels.norm_fc_gelu."""
        self._multiply(self._fc, args, pdl)

    def proj_residual(self, *args: Tensor | None, pdl: bool) -> None:
        """With those of barkfast_kernels.proj_residual."""
        self._multiply(self._proj, args, pdl)

    def _multiply(self, made: tuple[Launchable, int], args: tuple[Tensor | None, ...], pdl: bool) -> None:
        kernel, blocks = made
        *_, rows, _ = args
        assert rows is not None
        kernel.launch((blocks, 1, 1), (*args, len(rows)), pdl=pdl)
