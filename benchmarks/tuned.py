"""The variant that a run found fastest: `python -m benchmarks.tuned RESULTS.json` makes it this device's choice."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from barkfast.errors import InputError
from barkfast.runtime.cuda import tuned
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.tuned import Entry
from barkfast_kernels.variant import VARIANTS, Variant
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import read_fragment, write_json

# Forces a variant by its label, in the process that it is set in.
VARIABLE = "BARKFAST_VARIANT"


def best_variant(plan: Plan, config: Any, dtype: str) -> tuple[str, Variant]:
    """What the section `ab` of this run found fastest for a dtype, else what would run by itself, and its name."""
    found = find_chosen(plan, dtype)
    if found is not None:
        return found.label, found.variant
    storage = networks.storage(plan, dtype)
    variant = Options.for_device(plan.device, config=config, dtype=storage, int8=dtype == "int8").variant
    return next((label for label, known in VARIANTS.items() if known == variant), "default"), variant


def find_chosen(plan: Plan, dtype: str) -> Entry | None:
    """What the section `ab` of this run chose for a dtype."""
    found = [one for one in entries_of(read_fragment(plan.work / "ab.json")) if one.dtype == dtype]
    return found[-1] if found else None


def entries_of(section: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The choices among the rows of the section `ab`."""
    return tuple(Entry.from_dict(row["entry"]) for row in section["rows"] if "entry" in row)


def write(path: Path, entries: Sequence[Entry]) -> None:
    """A file that `tuned.read` reads."""
    write_json(path, {"format": tuned.FORMAT, "entries": [entry.to_dict() for entry in entries]})


def find_entries(path: Path) -> tuple[Entry, ...]:
    """The entries of a run's results. Raises: InputError where there are none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("smoke"):
            raise ValueError("it is of a smoke test, whose times mean nothing")
        entries = entries_of(content["sections"].get("ab", {"rows": []}))
    except (AttributeError, KeyError) as error:
        raise InputError(f"{path} holds no results of `make gpu`") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    if not entries:
        raise InputError(f"{path} has no choice of kernels: its section ab found none, or did not run")
    return entries


def install(entries: Sequence[Entry], path: Path = tuned.FILE) -> list[Entry]:
    """Put entries in the place of those of the same device, dtype and batch; returns all that are kept, in order.

    What was measured of other kernels on the same device goes, too.

    Raises: InputError for a file that cannot be used.
    """
    try:
        before = tuned.parse(path.read_text(encoding="utf-8")) if path.exists() else ()
    except ValueError as error:
        raise InputError(f"{path}: {error}; put back the one that is in the repository") from error
    new = {(entry.device, entry.dtype, entry.batch) for entry in entries}
    sources = {entry.device: entry.source for entry in entries}
    kept = [
        entry
        for entry in before
        if (entry.device, entry.dtype, entry.batch) not in new
        and sources.get(entry.device, entry.source) == entry.source
    ]
    entries = sorted([*kept, *entries], key=lambda entry: (entry.device, entry.dtype, entry.batch))
    write(path, entries)
    return entries


def main(argv: list[str] | None = None) -> int:
    """Install the entries of a file; 0 if that was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a run's results")
    parser.add_argument("--into", type=Path, default=tuned.FILE, help="the file to be changed (default: the package's)")
    options = parser.parse_args(argv)
    try:
        entries = find_entries(options.results)
        install(entries, options.into)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    current = tuned.source_digest()
    for entry in entries:
        stale = "" if entry.source == current else "; the kernels have changed since, so it is not in force"
        print(f"{entry.device}, {entry.dtype}, batch {entry.batch}: {entry.label}, measured {entry.measured}{stale}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
