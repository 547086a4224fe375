"""The results of `barkfast bench`: where they are written, and how they are shown."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from barkfast.cli.process import CLOSED, note
from barkfast.errors import InputError
from barkfast.files import expand

Result = dict[str, Any]


def json_path(given: str | None, place: Callable[[Path], Path]) -> Path | None:
    """The file that `--json` names, if it names one. Args: place: chooses a file in a folder. Raises: InputError."""
    if given == "-" and "stdout" in CLOSED:
        raise InputError("--json -: standard output is closed; expected a file, or give one in place of -")
    if given is None or given == "-":
        return None
    path = expand(given)
    return place(path) if path.is_dir() else path


def deliver(
    measure: Callable[[], Result],
    json_option: str | None,
    out: Path | None,
    show: Callable[[Result, TextIO], None],
    plot: Callable[[Result], list[Path]] | None,
) -> Result:
    """Measure, draw and print; of an interrupted run what there is, without pictures.

    Args:
        out: the file that `measure` writes, to be named.

    Returns: the result.

    Raises: Interrupted, after printing.
    """
    from barkfast.bench.bench import Interrupted

    # If the json goes to standard output, text for people goes to standard error.
    plain = json_option == "-"
    people = sys.stderr if plain else sys.stdout
    interrupt: Interrupted | None = None
    plots: list[Path] = []
    try:
        result = measure()
        # Write files first: the reader of the output may be gone.
        plots = plot(result) if plot is not None else []
    except Interrupted as error:
        result, interrupt = error.result, error
    show(result, people)
    if plain:
        print(json.dumps(result, indent=1, allow_nan=False))
    if out is not None:
        print(f"{out}: the result, {result['status']}", file=people)
    for path in plots:
        print(path, file=people)
    if interrupt is not None:
        raise interrupt
    return result


def progress_clock() -> Callable[[str], None]:
    """A function that prints progress lines with the seconds since the start."""
    begin = time.monotonic()

    def say(line: str) -> None:
        note(f"barkfast: {time.monotonic() - begin:4.0f} s: {line}")

    return say


def new_file(folder: Path, words: Iterable[str]) -> Path:
    """A .json that is not there yet."""
    stem = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
    found, n = folder / f"{stem}.json", 1
    while found.exists():
        n += 1
        found = folder / f"{stem}-{n}.json"
    return found
