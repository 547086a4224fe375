"""Atomic file writes, paths given by users, and file hashes."""

import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from barkfast.errors import InputError, OutputError

AnyPath = str | bytes | os.PathLike[str]


def expand(path: AnyPath) -> Path:
    """The path with `~` and `~user` replaced; unchanged if there is no such home folder."""
    try:
        text = os.fsdecode(path)
    except TypeError as error:
        raise InputError(f"path is {path!r} ({type(path).__name__}); expected a str or a pathlib.Path") from error
    if not text:
        raise InputError("path is ''; expected the name of a file or a folder")
    if "\0" in text:
        raise InputError(f"path is {text!r}; no file name can hold a NUL character")
    return Path(os.path.expanduser(text))


def find_home() -> Path | None:
    """The user's home folder; None if neither $HOME nor the user database has one."""
    home = os.path.expanduser("~")
    return None if home == "~" else Path(home)


def user_cache() -> Path | None:
    """$XDG_CACHE_HOME, else ~/.cache; None without a home folder. It may not exist."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return expand(given)
    home = find_home()
    return None if home is None else home / ".cache"


class _NewFile(io.FileIO):
    """A file whose errors name its final path; until it is complete, it has a temporary name or none."""

    def __init__(self, descriptor: int, path: AnyPath) -> None:
        super().__init__(descriptor, "wb")
        self._path = path

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise _cannot_write(self._path, error) from error


def _cannot_write(path: AnyPath, error: OSError) -> OutputError:
    return OutputError(f"cannot write {os.fsdecode(path)}: {error.strerror or error}; choose another place")


def _find_target(path: AnyPath) -> Path:
    """The file to write for a path, with links followed: a link is kept, and its target is replaced.

    Raises:
        OutputError: the path is not a regular file, or its folder does not exist.
    """
    expanded, name = expand(path), os.fsdecode(path)
    try:
        target = Path(os.path.realpath(expanded))
        mode = target.stat().st_mode if target.exists() else None
    except OSError as error:
        # A relative path while the current folder is deleted, or a loop of links.
        raise OutputError(f"cannot write {name}: {error.strerror or error}; give an absolute path") from error
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"cannot write {name}: it is a folder; give a file name")
    if mode is not None and not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {name}: it is a device or a pipe, not a file; give a file name")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {name}: {target.parent} is not an existing folder; make it first")
    return target


def _temporary_name(path: Path) -> Path:
    # In the same folder, so that the final rename stays on one file system and is atomic.
    return path.with_name(f".{secrets.token_hex(6)}.part")


def _open_new(temporary: Path) -> tuple[int, bool]:
    """Open a new file for writing; returns its descriptor, and whether it has a name yet.

    Linux supports files without a name. They disappear with the process that writes them, however it ends.
    """
    if hasattr(os, "O_TMPFILE") and os.path.exists("/proc/self/fd"):
        # Not every file system supports them.
        with suppress(OSError):
            return os.open(temporary.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), False
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), True


def _give_name(descriptor: int, temporary: Path) -> None:
    # With a folder's descriptor Python calls linkat(), the only call that follows the link in /proc.
    folder = os.open(temporary.parent, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{descriptor}", temporary.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


@contextmanager
def replacing(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the block ends without an exception.

    Until then an existing file at `path` is unchanged. On any exception, Ctrl-C included, the new file is removed; on
    most Linux file systems also when the process is killed.

    Raises:
        OutputError: the file cannot be written; the message has `path`.
    """
    target = _find_target(path)
    temporary = _temporary_name(target)
    try:
        try:
            descriptor, named = _open_new(temporary)
        except OSError as error:
            raise _cannot_write(path, error) from error
        with io.BufferedWriter(_NewFile(descriptor, path)) as file:
            yield file
            file.flush()
            try:
                if not named:
                    _give_name(descriptor, temporary)
                os.replace(temporary, target)
            except OSError as error:
                raise _cannot_write(path, error) from error
    except BaseException:
        # Also for Ctrl-C, and for errors of the block.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def check_writable(path: AnyPath) -> None:
    """Raise OutputError unless a file can be written to `path`; creates a temporary file and removes it."""
    target = _find_target(path)
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(
            f"cannot write {os.fsdecode(path)}: the file is there and write-protected; choose another name"
        )
    temporary = _temporary_name(target)
    try:
        # Creating a file is the only test that also detects read-only mounts and access control lists.
        descriptor, named = _open_new(temporary)
        os.close(descriptor)
        if named:
            temporary.unlink()
    except OSError as error:
        raise _cannot_write(path, error) from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
