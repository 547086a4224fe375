"""The folder of what barkfast can make again at any time: packed weights, and what files were found to hold."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from barkfast.files import expand, hash_file, replacing, user_cache

# A file that changed within this time may change again without a new time stamp: some file systems count in seconds.
_SETTLED_NS = 2_000_000_000


def cache_folder() -> Path | None:
    """$BARKFAST_CACHE, else `barkfast` in $XDG_CACHE_HOME or ~/.cache; it may not exist.

    None if it is switched off, and in a process without a home folder: nothing is kept then.
    """
    given = os.environ.get("BARKFAST_CACHE")
    if given:
        return None if given.lower() in ("off", "0") else expand(given)
    folder = user_cache()
    return None if folder is None else folder / "barkfast"


def cache_bytes(folder: Path) -> int:
    """Bytes of all files in the folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def hash_content(path: Path) -> str:
    """SHA-256 of a file, from memory if the file has not changed since it was last hashed.

    The memory is hashes.json in the cache folder: path -> size, time of change, inode, digest.
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
        # Read again: another process may have added to it meanwhile.
        known = {name: entry for name, entry in _read_hashes(folder).items() if os.path.exists(name)}
        known[str(path)] = [*before, digest]
        # Without it the next start takes longer, and that is all.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / "hashes.json") as file:
                file.write(json.dumps(known, indent=1).encode())
    return digest


def _stamp(path: Path) -> list[int]:
    """What changes with a file's content."""
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
