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
from barkfast_kernels.variant import VARIANTS, Variant

STEP = VARIANTS["C9 C8, weights to L2"]
# Largest batch.
VECTOR_ROWS = 8
# Most rows of a matrix per block: one lane of a warp for each.
MOST_ROWS = 32
ATTENTION_THREADS = 256
# Shared memory besides the dynamic part, which is requested by size.
RESERVED_BYTES = 8 * 1024
FOLDER = Path(__file__).parent
SOURCES = ("device.cuh", "numbers.cuh", "matrices.cu", "attention.cu", "random.cuh", "head.cu")
TYPES = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat"}


@dataclass(frozen=True)
class Shape:
    """Sizes, types and options that the source is compiled for.

    Args:
        dtype: of activations, norms and KV cache.
        int8: whether the layers' matrices are int8 instead of `dtype`.
        variant: options of the kernels.
        bounded: turn copies that never arrive into an error; for debugging.
    """

    n_embd: int
    n_head: int
    block_size: int
    dtype: torch.dtype
    int8: bool
    variant: Variant = STEP
    bounded: bool = False

    @property
    def definitions(self) -> tuple[str, ...]:
        """Macro definitions for the compiler."""
        storage, variant = TYPES[self.dtype], self.variant
        values = {
            "EMBD": self.n_embd,
            "HEADS": self.n_head,
            "POSITIONS": self.block_size,
            "SPLITS": variant.splits,
            "TRIGGER_FIRST": int(variant.trigger_first),
            "ONE_TRIP": int(variant.one_trip),
            "BRANCHLESS": int(variant.branchless),
            "BOUNDED": int(self.bounded),
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
        """Rows per block of a matrix with `n_out` rows."""
        return min(MOST_ROWS, -(-n_out // self.variant.blocks))

    def matrix_bytes(self, n_out: int, n_in: int) -> int:
        """Bytes of a block's rows."""
        return self.rows(n_out) * n_in * (1 if self.int8 else self.dtype.itemsize)

    @property
    def attention_bytes(self) -> int:
        """Bytes of a split's keys and values."""
        return 2 * (self.block_size // self.variant.splits) * self.head_dim * self.dtype.itemsize

    @property
    def most_bytes(self) -> int:
        """Shared memory of the block that needs most."""
        largest = max(self.matrix_bytes(4 * self.n_embd, self.n_embd), self.matrix_bytes(self.n_embd, 4 * self.n_embd))
        return max(largest, self.attention_bytes) + RESERVED_BYTES

    def why_not(self) -> str | None:
        """Why there are no kernels for this shape, or None."""
        if self.n_embd % 128 or self.n_embd > 1024:
            return f"n_embd is {self.n_embd}, not a multiple of 128 up to 1024"
        # Each lane handles 16 bytes of a position, so a block handles ATTENTION_THREADS // lanes positions at once.
        lanes = self.head_dim * self.dtype.itemsize // 16
        if self.head_dim not in (32, 64, 128) or self.block_size % (self.variant.splits * ATTENTION_THREADS // lanes):
            return f"heads of {self.head_dim} channels and {self.block_size} positions are not supported"
        return None


def why_not(shape: Shape, device: torch.device) -> str | None:
    """Why these kernels do not support such a network on a device, or None."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return "they need compute capability 9.0; on others they have not been run"
    room = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    if shape.most_bytes > room:
        return f"a block needs {shape.most_bytes} bytes of shared memory and can have {room}"
    try:
        from cuda.bindings import driver, nvrtc  # noqa: F401

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        return f"NVIDIA's compiler (NVRTC) cannot be used: {error}"
    return shape.why_not()


def compile_step(shape: Shape, capability: tuple[int, int]) -> bytes:
    """Machine code for a device of that compute capability; needs no GPU.

    Raises: ProgramError; ImportError without NVIDIA's bindings.
    """
    architecture = f"--gpu-architecture=sm_{capability[0]}{capability[1]}"
    return compile_cubin(read_source(), [architecture, "--std=c++17", *shape.definitions], "layer.cu")


def read_source() -> str:
    """All source files as one text."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SOURCES)


@cache
def _program(shape: Shape, device_index: int) -> Program:
    return Program(compile_step(shape, torch.cuda.get_device_capability(device_index)))


class Launchable(Protocol):
    """A kernel, on a device or emulated."""

    def launch(self, grid: tuple[int, int, int], args: tuple[Argument, ...], *, pdl: bool) -> None:
        """See program.Kernel."""


class Loader(Protocol):
    """Source of kernels: a program.Program or an emulator."""

    # Limit of shared memory per block, bytes.
    room: int

    def kernel(self, name: str, *, threads: int, shared_bytes: int, carveout: int | None) -> Launchable:
        """See program.Program."""


class HopperOps:
    """The operations for networks of one shape.

    Args:
        program: None compiles one for the current device.
        one_slot: every batch consists of slot 0 only.

    Raises: ProgramError if the compiler or the driver fails.
    """

    def __init__(self, shape: Shape, program: Loader | None = None, *, one_slot: bool = False) -> None:
        emulated = program is not None
        if program is None:
            program = _program(shape, torch.cuda.current_device())
        self.shape, self.splits, width = shape, shape.variant.splits, shape.n_embd
        self.program, self.one_slot = program, one_slot
        carveout = shape.variant.carveout

        def kernel(name: str, n_out: int, n_in: int) -> tuple[Launchable, int]:
            shared_bytes = shape.matrix_bytes(n_out, n_in)
            made = program.kernel(name, threads=width // 4, shared_bytes=shared_bytes, carveout=carveout)
            return made, -(-n_out // shape.rows(n_out))

        self._qkv = kernel("norm_qkv", 3 * width, width)
        self._out = kernel("attention_out", width, width)
        self._fc = kernel("norm_fc_gelu", 4 * width, width)
        self._proj = kernel("proj_residual", width, 4 * width)
        self._attention = program.kernel(
            "decode_attention",
            threads=ATTENTION_THREADS,
            shared_bytes=shape.attention_bytes,
            carveout=carveout,
        )
        # (row, key and value, channel): newest key and value of each row, which attention loads with the query.
        device = "cpu" if emulated else "cuda"
        self.newest = torch.zeros(VECTOR_ROWS, 2, width, dtype=shape.dtype, device=device)
        self._scale = math.log2(math.e) / math.sqrt(shape.head_dim)

    def norm_qkv(self, *args: Tensor | None, pdl: bool, ahead: Tensor | None = None) -> None:
        """Same as barkfast_kernels.norm_qkv; positional arguments in its order."""
        self._multiply(self._qkv, (*args[:7], self.newest, *args[7:]), pdl, ahead)

    def decode_attention(self, *args: Tensor, pdl: bool, ahead: Tensor | None = None) -> None:
        """Same as barkfast_kernels.decode_attention, but with fixed splits of block_size // splits positions."""
        q, *others, rows, slots = args
        grid = (self.splits, self.shape.n_head, len(rows))
        self._attention.launch(
            grid, (q, self.newest, *others, self._listed(rows), slots, self._scale, *later(ahead, pdl)), pdl=pdl
        )

    def attention_out(self, *args: Tensor | None, pdl: bool, ahead: Tensor | None = None) -> None:
        """Same as barkfast_kernels.attention_out."""
        self._multiply(self._out, args, pdl, ahead)

    def norm_fc_gelu(self, *args: Tensor | None, pdl: bool, ahead: Tensor | None = None) -> None:
        """Same as barkfast_kernels.norm_fc_gelu."""
        self._multiply(self._fc, args, pdl, ahead)

    def proj_residual(self, *args: Tensor | None, pdl: bool, ahead: Tensor | None = None) -> None:
        """Same as barkfast_kernels.proj_residual."""
        self._multiply(self._proj, args, pdl, ahead)

    def _listed(self, rows: Tensor) -> Tensor | None:
        """The kernels' argument `rows`; None means slot 0 only."""
        return None if self.one_slot else rows

    def _multiply(
        self, made: tuple[Launchable, int], args: tuple[Tensor | None, ...], pdl: bool, ahead: Tensor | None
    ) -> None:
        kernel, blocks = made
        *others, rows, slots = args
        assert rows is not None
        kernel.launch((blocks, 1, 1), (*others, self._listed(rows), slots, len(rows), *later(ahead, pdl)), pdl=pdl)


def later(ahead: Tensor | None, pdl: bool) -> tuple[Tensor | None, int]:
    """The last two arguments of every kernel: weights to prefetch and their bytes; None and 0 without PDL."""
    return (None, 0) if ahead is None or not pdl else (ahead, ahead.numel() * ahead.element_size())
