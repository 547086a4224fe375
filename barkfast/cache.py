"""The cache folder: packed weights and file hashes, all of which barkfast can recreate."""

import json
import logging
import os
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from barkfast.files import expand, find_home, hash_file, replacing, user_cache

logger = logging.getLogger(__name__)

# A file that changed this recently may change again with the same time stamp: some file systems store whole seconds.
_SETTLED_NS = 2_000_000_000


def cache_folder() -> Path | None:
    """$BARKFAST_CACHE, else `barkfast` in $XDG_CACHE_HOME or ~/.cache; it may not exist.

    None if the cache is switched off or the process has no home folder: nothing is cached then.
    """
    given = os.environ.get("BARKFAST_CACHE")
    if given:
        return None if given.lower() in ("off", "0") else expand(given)
    folder = user_cache()
    return None if folder is None else folder / "barkfast"


@lru_cache(maxsize=1)
def ensure_triton_cache() -> tempfile.TemporaryDirectory[str] | None:
    """Give Triton a temporary folder if there is no home folder: it would create one named `~` in the current folder.

    It is deleted with the process: other users could write code into a shared folder with a fixed name.
    """
    if find_home() is not None or "TRITON_HOME" in os.environ or "TRITON_CACHE_DIR" in os.environ:
        return None
    folder = tempfile.TemporaryDirectory(prefix="barkfast-triton-")
    os.environ["TRITON_HOME"] = folder.name
    logger.warning("no home folder: compiled kernels are not kept; set TRITON_CACHE_DIR to a folder to keep them")
    return folder


def cache_bytes(folder: Path) -> int:
    """Bytes of all files in the folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def hash_content(path: Path) -> str:
    """SHA-256 of a file, from the cache if the file has not changed since it was last hashed.

    The cache is hashes.json in the cache folder: path -> size, modification time in ns, inode, digest.
    """
    path = path.resolve()
    before = _stamp(path)
    folder = cache_folder()
    known = _read_hashes(folder)
    remembered = known.get(str(path))
    if isinstance(remembered, list) and remembered[:-1] == before:
        return str(remembered[-1])
    digest = hash_file(path)
    if folder is not None and before == _stamp(path) and before[1] < time.time_ns() - _SETTLED_NS:
        # Read again: another process may have written to it meanwhile.
        known = {name: entry for name, entry in _read_hashes(folder).items() if os.path.exists(name)}
        known[str(path)] = [*before, digest]
        # A failure only costs time: the next start hashes the file again.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / "hashes.json") as file:
                file.write(json.dumps(known, indent=1).encode())
    return digest


def _stamp(path: Path) -> list[int]:
    """Size, modification time in ns and inode, which change with a file's content."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read_hashes(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    try:
        content = json.loads((folder / "hashes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
