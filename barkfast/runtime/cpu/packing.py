"""A network's weights as the native kernels read them: packed matrices, tables and vectors in one block of memory."""

import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from barkfast.config import FineConfig, GPTConfig
from barkfast.errors import EngineError
from barkfast.native import load_native, native_status

# Of every piece within the block, in bytes: a cache line, and a step of a panel.
ALIGNMENT = 64
# Rows of one panel; vectors are padded to a multiple of it.
PANEL_ROWS = 16


class Format(IntEnum):
    """How numbers are stored; the values are those of the native module."""

    F32 = 0
    BF16 = 1
    INT8 = 2
    INT4 = 3


@dataclass(frozen=True, slots=True)
class Formats:
    """Storage formats of a network's weights in one dtype; norms and biases are always float32.

    Args:
        matrices: of the layers.
        first: of the first layers instead, see `n_first_layers`.
        heads, tables: of the output and the input embeddings.
    """

    matrices: Format
    first: Format
    heads: Format
    tables: Format


FORMATS = {
    "float32": Formats(Format.F32, Format.F32, Format.F32, Format.F32),
    "bfloat16": Formats(Format.BF16, Format.BF16, Format.BF16, Format.BF16),
    # Rounding matters most in the first layers, where the residual stream is smallest, and in the head, where it goes
    # straight into the logits. Both are a small part of the weights.
    "int8": Formats(Format.INT8, Format.BF16, Format.INT8, Format.BF16),
    "int4": Formats(Format.INT4, Format.INT8, Format.INT8, Format.BF16),
}
# One layer in this many counts as a first one.
LAYERS_PER_FIRST = 12

# Dtypes that the packers read; others are converted to float32 first.
SOURCES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}

# One tensor as the native module takes it: name, kind, format, rows, cols, address.
Entry = tuple[str, str, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor's place in the block.

    Args:
        name: its key in the checkpoint.
        kind: "matrix", "table" or "vector".
        rows, cols: as in the checkpoint; a vector has one column.
        offset, size: of its numbers in the block, in bytes.
    """

    name: str
    kind: str
    format: Format
    rows: int
    cols: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next piece may begin."""
        return _round_up(self.offset + self.size, ALIGNMENT)


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed network; the addresses in `entries` are valid as long as this object lives."""

    pieces: tuple[Piece, ...]
    block: NDArray[np.uint8]

    @property
    def entries(self) -> list[Entry]:
        start = self.block.ctypes.data
        return [(p.name, p.kind, int(p.format), p.rows, p.cols, start + p.offset) for p in self.pieces]


def require_native() -> ModuleType:
    """The native module. Raises: EngineError if it was not built or does not load."""
    module = load_native()
    if module is None:
        raise EngineError(f"the cpu engine needs the native module: {native_status()[1]}; or use engine='torch'")
    return module


def fits(config: GPTConfig) -> str | None:
    """Why the native kernels cannot run a network of this size; None if they can."""
    if config.head_dim % PANEL_ROWS:
        return f"its heads are {config.head_dim} wide; the cpu engine's kernels need a multiple of {PANEL_ROWS}"
    return None


def n_first_layers(config: GPTConfig) -> int:
    """How many first layers are stored more exactly than the others if weights are quantized."""
    return max(1, config.n_layer // LAYERS_PER_FIRST)


def _matrix_format(config: GPTConfig, name: str, formats: Formats) -> Format:
    if name.startswith("lm_head"):
        return formats.heads
    # transformer.h.{layer}.
    return formats.first if int(name.split(".")[2]) < n_first_layers(config) else formats.matrices


def plan_pieces(config: GPTConfig, tensors: Mapping[str, Tensor], dtype: str) -> tuple[Piece, ...]:
    """Where each tensor of a network goes in the block."""
    native = require_native()
    formats = FORMATS[dtype]
    pieces: list[Piece] = []
    for name, tensor in tensors.items():
        rows, cols = (*tensor.shape, 1)[:2]
        if tensor.dim() == 1:
            kind, format = "vector", Format.F32
            size = 4 * _round_up(rows, PANEL_ROWS)
        elif name.startswith("transformer.w"):
            kind, format = "table", formats.tables
            size = rows * cols * (4 if format == Format.F32 else 2)
        else:
            kind, format = "matrix", _matrix_format(config, name, formats)
            size = native.packed_bytes(int(format), rows, cols)
        offset = pieces[-1].end if pieces else 0
        pieces.append(Piece(name, kind, format, rows, cols, offset, size))
    return tuple(pieces)


def pack_network(
    config: GPTConfig, tensors: Mapping[str, Tensor], dtype: str, *, what: str, threads: int = 1
) -> Packed:
    """Pack a checkpoint's tensors.

    Args:
        tensors: names as in barkfast.models, any floating point dtype.
        dtype: float32, bfloat16, int8 or int4.
        what: the network's name in errors, such as "the coarse network".

    Raises: EngineError naming a tensor that holds NaN, infinity or a number too large for `dtype`; MemoryError.
    """
    native, pieces = require_native(), plan_pieces(config, tensors, dtype)
    block = allocate(pieces[-1].end)
    for piece in pieces:
        if not _pack(native, _tied(config, tensors, piece.name), piece, block, threads):
            raise EngineError(
                f"{what}'s {piece.name} holds NaN or infinity, or a number too large for {dtype}; "
                "if dtype='float32' fails too, the checkpoint is damaged: get it again"
            )
    return Packed(pieces, block)


def allocate(size: int) -> NDArray[np.uint8]:
    """Zeroed, page-aligned memory, in huge pages where the system has them, since weights are read sequentially."""
    try:
        memory = mmap.mmap(-1, size)
    except OSError as error:
        raise MemoryError(f"no {size / 2**20:.0f} MiB of memory for packed weights: {error}") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Without huge pages it is only slower.
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)


def unpack_matrix(packed: Packed, name: str) -> Tensor:
    """A packed matrix, dequantized to float32, (rows, cols): for tests and comparisons."""
    entry = next(entry for entry in packed.entries if entry[0] == name)
    _, _, format, rows, cols, address = entry
    numbers = torch.empty(rows, cols)
    require_native().unpack_matrix(format, rows, cols, address, numbers.data_ptr())
    return numbers


def _pack(native: ModuleType, tensor: Tensor, piece: Piece, block: NDArray[np.uint8], threads: int) -> bool:
    """Fill one piece; return False if it would hold NaN or infinity."""
    if tensor.dtype not in SOURCES:
        tensor = tensor.float()
    tensor = tensor.cpu().contiguous()
    source = (tensor.data_ptr(), SOURCES[tensor.dtype])
    target = block.ctypes.data + piece.offset
    if piece.kind == "vector":
        return native.pack_vector(*source, piece.rows, target)
    if piece.kind == "table":
        return native.pack_table(*source, piece.rows, piece.cols, int(piece.format), target, threads)
    return native.pack_matrix(*source, piece.rows, piece.cols, int(piece.format), target, threads)


def _tied(config: GPTConfig, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The tensor called `name`; for the input table of a predicted codebook its head, as in FineGPT.tie."""
    if isinstance(config, FineConfig) and name.startswith("transformer.wtes."):
        codebook = int(name.split(".")[2])
        return tensors.get(f"lm_heads.{codebook - 1}.weight", tensors[name])
    return tensors[name]


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step
