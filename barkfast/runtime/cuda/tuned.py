"""Which variant of a decode step's kernels runs on a device: the one that was measured fastest there, by tuned.json.

A measurement is valid until the kernels' sources change. `python -m benchmarks.tuned` writes the file.
"""

import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import barkfast_kernels
from barkfast.config import GPTConfig
from barkfast.errors import InputError
from barkfast_kernels.variant import DEFAULT, VARIANTS, Variant

logger = logging.getLogger(__name__)

FORMAT = 1
FILE = Path(__file__).with_name("tuned.json")
KERNELS = Path(barkfast_kernels.__file__).parent
SUFFIXES = {".py", ".cu", ".cuh"}
# Bark-large's sizes, with which kernels are measured.
LARGE = GPTConfig(n_layer=24, n_head=16, n_embd=1024)
# Used if the chosen CUDA variant cannot run.
TRITON = replace(DEFAULT, kernels="triton")


@dataclass(frozen=True)
class Entry:
    """The fastest variant of one measurement.

    Args:
        device: `slug` of the device's name.
        dtype: of the weights; int8 where the layers' matrices are.
        batch: sequences at a time.
        source: `source_digest` of the kernels that were timed.
        measured: the day, such as 2026-11-24.
        label: the variant's name in VARIANTS when it was measured.
        us, base_us: microseconds per step by network and context, such as "semantic 300": of this variant, and of its
            baseline in the same run.
    """

    device: str
    dtype: str
    batch: int
    source: str
    measured: str
    label: str
    variant: Variant
    us: dict[str, float]
    base_us: dict[str, float]

    @classmethod
    def from_dict(cls, content: Any) -> "Entry":
        """The inverse of `to_dict`.

        Raises: ValueError that names what is wrong.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or content.keys() != names:
            raise ValueError(f"an entry is not an object of {', '.join(sorted(names))}")
        for name in ("device", "dtype", "source", "measured", "label"):
            if not isinstance(content[name], str) or not content[name]:
                raise ValueError(f"{name} is {content[name]!r}, not a text")
        if type(content["batch"]) is not int or content["batch"] < 1:
            raise ValueError(f"batch is {content['batch']!r}, not a number of sequences")
        for name in ("us", "base_us"):
            times = content[name]
            if not isinstance(times, dict) or not all(_is_time(value) for value in times.values()):
                raise ValueError(f"{name} is {times!r}, not an object of microseconds")
        if not isinstance(content["variant"], dict):
            raise ValueError(f"variant is {content['variant']!r}, not an object")
        return cls(**content | {"variant": Variant.from_dict(content["variant"])})

    def to_dict(self) -> dict[str, Any]:
        """As an object for JSON."""
        return asdict(self)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


@dataclass(frozen=True)
class Tuned:
    """A file's content; with a `problem` the file is ignored, and there are no entries."""

    entries: tuple[Entry, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Choice:
    """A variant, and why it was chosen.

    Args:
        reason: one line.
        refused: whether another variant was measured fastest but cannot run here.
    """

    variant: Variant
    reason: str
    refused: bool = False


def slug(name: str) -> str:
    """A device's name as in entries: "NVIDIA H200" is nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def dtype_name(dtype: torch.dtype, int8: bool) -> str:
    """The dtype as in entries."""
    return "int8" if int8 else str(dtype).removeprefix("torch.")


def digest(folder: Path) -> str:
    """Digest of the kernels' sources in a folder: their relative paths and contents."""
    found = hashlib.sha256()
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file()}
    for name in sorted(paths):
        # Checkouts on other systems may have other line endings.
        content = paths[name].read_bytes().replace(b"\r\n", b"\n")
        found.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return found.hexdigest()[:16]


@cache
def source_digest() -> str:
    """Digest of the installed kernels."""
    return digest(KERNELS)


def parse(text: str) -> tuple[Entry, ...]:
    """The entries of a file.

    Raises: ValueError that names what is wrong.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("format") != FORMAT or isinstance(content["format"], bool):
        raise ValueError(f"it is not of format {FORMAT}")
    if not isinstance(content.get("entries"), list):
        raise ValueError("it has no list of entries")
    return tuple(Entry.from_dict(entry) for entry in content["entries"])


@cache
def read(path: Path = FILE) -> Tuned:
    """Read a file; one that cannot be used is ignored, with one line in the log."""
    try:
        return Tuned(parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:200] or type(error).__name__
    logger.warning("%s is ignored, and the kernels of decode steps are not chosen by it: %s", path.name, problem)
    return Tuned(problem=problem)


def choose(device_name: str, dtype: str, batch: int, path: Path = FILE) -> Choice:
    """The variant measured fastest at the largest measured batch size up to `batch`; the default if there is none.

    Args:
        device_name: as in torch.
        dtype: of the weights, or int8.
    """
    tuned = read(path)
    if tuned.problem:
        return _default(f"{path.name} is ignored: {tuned.problem}")
    found = [entry for entry in tuned.entries if entry.device == slug(device_name)]
    if not found:
        return _default(f"nothing was measured on {device_name}")
    found = [entry for entry in found if entry.dtype == dtype]
    if not found:
        return _default(f"{dtype} was not measured on {device_name}")
    try:
        current = source_digest()
    except OSError as error:
        return _default(f"the kernels' sources cannot be read: {error}")
    stale, found = found, [entry for entry in found if entry.source == current]
    if not found:
        return _default(f"the kernels have changed since {max(entry.measured for entry in stale)}")
    found = [entry for entry in found if entry.batch <= batch]
    if not found:
        return _default(f"{dtype} was measured for more than {batch} sequences only")
    entry = max(found, key=lambda entry: (entry.batch, entry.measured))
    return Choice(entry.variant, f"{entry.label}, measured {entry.measured} with a batch of {entry.batch}")


def _default(reason: str) -> Choice:
    return Choice(DEFAULT, f"defaults: {reason}")


def find_variant(name: str) -> tuple[str, Variant]:
    """A variant of VARIANTS by its label, or the first word of it, such as C8.

    Raises: InputError for an unknown one, with the list.
    """
    for label, variant in VARIANTS.items():
        if name.casefold() in (label.casefold(), label.split()[0].casefold()):
            return label, variant
    raise InputError(f"the kernel variant is {name!r}; expected one of: {'; '.join(VARIANTS)}")


def forced() -> Choice | None:
    """The variant of $BARKFAST_VARIANT, if that is set.

    Raises: InputError for an unknown one.
    """
    name = os.environ.get("BARKFAST_VARIANT")
    if not name:
        return None
    try:
        label, variant = find_variant(name)
    except InputError as error:
        raise InputError(f"BARKFAST_VARIANT: {error}") from error
    return Choice(variant, f"{label}, by BARKFAST_VARIANT")


def in_force(
    device: torch.device, dtype: torch.dtype, *, config: GPTConfig = LARGE, int8: bool = False, n_slots: int = 1
) -> Choice:
    """The variant that runs a network: $BARKFAST_VARIANT's, else the measured one if it can run here.

    Raises: InputError for an unknown variant in the environment.
    """
    asked = forced()
    if asked is not None:
        return asked
    if device.type != "cuda":
        return _default("no CUDA device")
    choice = choose(torch.cuda.get_device_name(device), dtype_name(dtype, int8), n_slots)
    if choice.variant.kernels != "cuda":
        return choice
    # Imported late: it needs Triton.
    from barkfast_kernels.hopper import Shape, why_not

    reason = why_not(Shape(config.n_embd, config.n_head, config.block_size, dtype, int8, choice.variant), device)
    if reason is None:
        return choice
    return Choice(TRITON, f"defaults: {choice.reason}, cannot be used: {reason}", refused=True)


def choose_variant(
    device: torch.device, dtype: torch.dtype, *, config: GPTConfig = LARGE, int8: bool = False, n_slots: int = 1
) -> Variant:
    """`in_force`, with one line in the log where the measured kernels cannot be used."""
    choice = in_force(device, dtype, config=config, int8=int8, n_slots=n_slots)
    if choice.refused:
        _warn(f"the kernels of decode steps are the {choice.reason}")
    return choice.variant


@cache
def _warn(line: str) -> None:
    """Log the line once, even if several networks are loaded."""
    logger.warning("%s", line)
