"""A disk cache of packed weights, which are memory-mapped, so that later starts neither read nor pack the checkpoint.

One safetensors file for each network and dtype, named by a hash of its inputs. The header is padded so that the data
start on a page, and the metadata hold the pieces of packing.py.
"""

import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from barkfast.cache import cache_folder
from barkfast.config import GPTConfig
from barkfast.files import replacing
from barkfast.runtime.cpu.packing import (
    FORMATS,
    Format,
    Packed,
    Piece,
    n_first_layers,
    pack_network,
    require_native,
)

logger = logging.getLogger(__name__)

# Version of the file's layout; increased with every change.
LAYOUT = 1
PAGE = 4096
# The checksum covers this many bytes at both ends of each piece: reading all would cost the time that the cache saves.
SAMPLE = 4096
# Unfinished files are removed when they are this old.
ABANDONED_S = 3600.0


def open_packed(
    config: GPTConfig,
    tensors: Mapping[str, Tensor],
    dtype: str,
    *,
    what: str,
    content: Callable[[], str] | None = None,
    threads: int = 1,
) -> Packed:
    """The packed network: mapped from the cache, or else packed and saved there for the next time.

    Args:
        tensors, dtype, what, threads: as for pack_network; tensors are not read if the cache has the network.
        content: returns an id of the tensors' content; None: nothing is cached.

    Raises: the errors of pack_network. A cache that cannot be read or written costs only time, and one warning.
    """
    folder = cache_folder()
    if folder is None or content is None:
        return pack_network(config, tensors, dtype, what=what, threads=threads)
    path = folder / "packed" / f"{name_packed(config, dtype, content())}.safetensors"
    packed = load_packed(path)
    if packed is None:
        packed = pack_network(config, tensors, dtype, what=what, threads=threads)
        try:
            save_packed(packed, path)
        except OSError as error:
            _warn(path.parent, error)
    return packed


def name_packed(config: GPTConfig, dtype: str, content: str) -> str:
    """A file name: the hash of all that determines a packed network's bytes."""
    formats = [astuple(FORMATS[dtype]), n_first_layers(config), _sample_packing()]
    key = [LAYOUT, formats, type(config).__name__, asdict(config), dtype, content]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


@cache
def _sample_packing() -> str:
    """Digest of a few numbers packed in each format: another build may order or round them differently."""
    numbers = torch.linspace(-1, 1, 17 * 70).view(17, 70) ** 3
    native, digest = require_native(), hashlib.sha256()
    for format in Format:
        panels = np.zeros(native.packed_bytes(int(format), *numbers.shape), dtype=np.uint8)
        native.pack_matrix(numbers.data_ptr(), "f32", *numbers.shape, int(format), panels.ctypes.data, 1)
        digest.update(panels.data)
    return digest.hexdigest()


def save_packed(packed: Packed, path: Path) -> None:
    """Write the file atomically. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    pieces = json.dumps([astuple(piece) for piece in packed.pieces])
    # Safetensors allows no gaps: each tensor includes the padding up to the next.
    header: dict[str, Any] = {
        piece.name: {"dtype": "U8", "shape": [piece.end - piece.offset], "data_offsets": [piece.offset, piece.end]}
        for piece in packed.pieces
    }
    checksum = _checksum(pieces, packed.pieces, packed.block)
    header["__metadata__"] = {"layout": str(LAYOUT), "pieces": pieces, "checksum": checksum}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.write(packed.block.data)
        file.flush()
        # Otherwise, after a power failure, the file may exist without its content.
        os.fsync(file.fileno())


def load_packed(path: Path) -> Packed | None:
    """Map the file; None if it does not exist or is damaged."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            # The size of the open file: another process may have replaced the one at `path`.
            if 8 + length > os.fstat(file.fileno()).st_size:
                raise ValueError(f"its header should have {length} bytes")
            packed = _check(json.loads(file.read(length)), _map(file.fileno(), 8 + length))
        # So that a file's age tells when it was last used.
        with suppress(OSError):
            os.utime(path)
        return packed
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        logger.info("%s is damaged and is made again: %s", path, error)
        return None


def _map(descriptor: int, start: int) -> NDArray[np.uint8]:
    """The file's bytes from `start` on, read-only, in memory that its other readers share."""
    if hasattr(mmap, "MAP_POPULATE"):
        memory = mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
    else:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    return np.frombuffer(memory, dtype=np.uint8)[start:]


def _check(header: Any, block: NDArray[np.uint8]) -> Packed:
    """The network that the header describes. Raises: ValueError, LookupError or TypeError if the file is damaged."""
    metadata = header["__metadata__"]
    if metadata["layout"] != str(LAYOUT):
        raise ValueError(f"its layout is {metadata['layout']!r}, not {LAYOUT}")
    pieces = tuple(
        Piece(name, kind, Format(format), *rest) for name, kind, format, *rest in json.loads(metadata["pieces"])
    )
    if pieces[-1].end != len(block):
        raise ValueError(f"it holds {len(block)} bytes of data, not {pieces[-1].end}")
    if _checksum(metadata["pieces"], pieces, block) != metadata["checksum"]:
        raise ValueError("its checksum is wrong")
    return Packed(pieces, block)


def _checksum(text: str, pieces: tuple[Piece, ...], block: NDArray[np.uint8]) -> str:
    """SHA-256 of the pieces' description, and of the first and last bytes of each piece."""
    digest = hashlib.sha256(text.encode())
    for piece in pieces:
        part = block[piece.offset : piece.end]
        digest.update(part[:SAMPLE].data)
        digest.update(part[-SAMPLE:].data)
    return digest.hexdigest()


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - ABANDONED_S:
                path.unlink()


_warned = False


def _warn(folder: Path, error: OSError) -> None:
    global _warned
    if not _warned:
        _warned = True
        logger.warning(
            "packed weights cannot be kept in %s (%s): every start will pack them again; make room, or set "
            "BARKFAST_CACHE to another folder, or to off",
            folder,
            error.strerror or error,
        )
