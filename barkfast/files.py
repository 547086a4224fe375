"""Files that appear whole or not at all, and the digest that tells them apart."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from barkfast.errors import InputError


def _temporary_name(path: Path) -> Path:
    # In the same folder, so that the final rename stays on one file system and is atomic.
    return path.with_name(f".{secrets.token_hex(6)}.part")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an exception.

    Until then what was at `path` stays as it is; on any exception, Ctrl-C included, the new file is removed.
    """
    # A link stays a link: what it points to is replaced.
    target = Path(os.path.realpath(path))
    temporary = _temporary_name(target)
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise InputError unless a file can be written to `path`; tries it, and leaves nothing behind."""
    target = Path(os.path.realpath(path))
    temporary = _temporary_name(target)
    try:
        if target.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; give a file name")
        if not target.parent.is_dir():
            raise InputError(f"cannot write {path}: {target.parent} is not an existing folder; make it first")
        if target.exists() and not os.access(target, os.W_OK):
            raise InputError(f"cannot write {path}: the file is there and write-protected; choose another name")
        # Trying is the only test that also holds for full disks, read-only mounts and access lists.
        with open(temporary, "xb"):
            pass
        temporary.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
