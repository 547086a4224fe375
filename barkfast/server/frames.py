"""Messages between the server and its engine's process: a JSON object and bytes behind it, each with its length."""

import asyncio
import json
import struct
from typing import Any

import numpy as np

from barkfast import errors
from barkfast.errors import EngineError

HEAD = struct.Struct(">II")
# Bytes of a message's object and of what is behind it; a longer one is an error of the sender.
MOST_OBJECT, MOST_DATA = 4 << 20, 256 << 20
# What crosses as what it is.
KNOWN = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}

Message = dict[str, Any]


def pack(message: Message, data: bytes = b"") -> bytes:
    """A message as bytes. Raises: EngineError if it is too long."""
    text = json.dumps(message).encode()
    if len(text) > MOST_OBJECT or len(data) > MOST_DATA:
        raise EngineError(f"a message of {len(text)} and {len(data)} bytes; expected {MOST_OBJECT} and {MOST_DATA}")
    return HEAD.pack(len(text), len(data)) + text + data


async def read(reader: asyncio.StreamReader) -> tuple[Message, bytes]:
    """The next message and its data.

    Raises:
        IncompleteReadError: the other side is gone.
        EngineError: it sent something else.
    """
    n_text, n_data = HEAD.unpack(await reader.readexactly(HEAD.size))
    if n_text > MOST_OBJECT or n_data > MOST_DATA:
        raise EngineError(f"a message of {n_text} and {n_data} bytes came; expected {MOST_OBJECT} and {MOST_DATA}")
    return json.loads(await reader.readexactly(n_text)), await reader.readexactly(n_data)


def pack_error(error: BaseException) -> Message:
    """An error as a message."""
    kind = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in KNOWN), "")
    text = str(error) if kind else f"{type(error).__name__}: {error}"
    return {"kind": kind, "text": " ".join(text.split())}


def make_error(message: Message) -> Exception:
    """The error of a message; EngineError for one of another library."""
    return KNOWN.get(message["kind"], EngineError)(message["text"])


def pack_arrays(arrays: dict[str, np.ndarray]) -> tuple[list[Message], bytes]:
    """Arrays as a description and bytes."""
    described = [{"name": n, "shape": a.shape, "dtype": a.dtype.newbyteorder("<").str} for n, a in arrays.items()]
    return described, b"".join(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes() for a in arrays.values())


def make_arrays(described: list[Message], data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a description; they own their memory."""
    arrays, start = {}, 0
    for entry in described:
        dtype = np.dtype(entry["dtype"])
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
        arrays[entry["name"]], start = array.copy(), start + count * dtype.itemsize
    return arrays
