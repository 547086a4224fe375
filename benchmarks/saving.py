"""What a run leaves behind: few files, each written whole, again every few seconds while the run goes on.

A file is written under another name and then given its own, so that a reader never sees half of one and a process that
is killed leaves the last whole one.
"""

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

# Seconds from one saving to the next while nothing else causes one.
SAVE_S = 8.0
# Of each log, the end; all of them are small unless something goes wrong.
MOST_BYTES = 2 * 2**20
ARCHIVE = "logs.tgz"
# What the name of a file that is being written begins with; a process that is killed may leave one behind.
PART = ".saving-"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, by a name of its own first."""
    part = path.with_name(f"{PART}{os.getpid()}")
    part.write_bytes(content)
    os.replace(part, path)


def pack_logs(folder: Path) -> bytes:
    """All files of a folder as a gzipped tar, of long ones the end; files that vanish meanwhile are left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for path in sorted(folder.iterdir()):
            # The probe's program and files that are being written have no suffix.
            if not path.is_file() or not path.suffix:
                continue
            try:
                content = read_end(path, MOST_BYTES)
            except OSError:
                continue
            info = tarfile.TarInfo(f"logs/{path.name}")
            info.size, info.mtime = len(content), int(path.stat().st_mtime) if path.exists() else 0
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read_end(path: Path, most: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - most))
        return stream.read(most)


def copy_out(out: Path, files: Iterable[Path], work: Path) -> None:
    """Results and packed logs into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        replace_file(out / file.name, file.read_bytes())
    replace_file(out / ARCHIVE, pack_logs(work))


class Saver:
    """Calls `save` every few seconds from a thread of its own, until it is closed."""

    def __init__(self, save: Callable[[], object], every_s: float = SAVE_S) -> None:
        self._save, self._every_s = save, every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="saver", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                self._save()
            except Exception as error:
                # The next one may do better, and the last whole one is still there.
                print(f"saving failed: {type(error).__name__}: {error}", flush=True)

    def close(self) -> None:
        """Stop, once a saving under way is done."""
        self._closed.set()
        self._thread.join()
