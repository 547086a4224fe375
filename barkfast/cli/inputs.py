"""Inputs for the text of a command: files of any size, standard input, scripts and their casts."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TextIO

from barkfast.errors import InputError
from barkfast.files import expand
from barkfast.longform import Line, parse_script
from barkfast.longform.script import find_speaker
from barkfast.normalize import Markup, normalize, normalize_stream
from barkfast.voices import load_voice

_BLOCK = 1 << 16


def count_characters(text: str) -> int:
    """The number of characters that are not whitespace, the unit of progress."""
    return len("".join(text.split()))


def _reading(parts: Iterable[str], name: str) -> Iterator[str]:
    """Yield the parts; the error for bytes that are not text has the name of their file."""
    try:
        yield from parts
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not valid {error.encoding}: {error.reason}; convert it first") from error


def _blocks(file: TextIO) -> Iterator[str]:
    while block := file.read(_BLOCK):
        yield block


def markup_of(path: str) -> Markup:
    """The markup of a file, by its name."""
    return "markdown" if path.lower().endswith((".md", ".markdown")) else "plain"


def read_file(path: str, markup: Markup | None = None) -> tuple[Iterator[str], int | None]:
    """The text of a file, read on demand, and its number of characters; "-" is standard input, of any length.

    The file is read once to check and count it, so that errors in it are found before a model is loaded. A
    Markdown file is read whole: its links may be defined at its end.

    Args:
        markup: None chooses by the file's name.
    """
    markup = markup or markup_of(path)
    if path == "-":
        return normalize_stream(_reading(sys.stdin, "standard input"), markup), None
    with open(expand(path), encoding="utf-8-sig") as file:
        total = sum(count_characters(block) for block in _reading(_blocks(file), path))
    if not total:
        raise InputError(f"{path} is empty: nothing to say; expected at least one visible character")

    def parts() -> Iterator[str]:
        with open(expand(path), encoding="utf-8-sig") as file:
            yield from _blocks(file)

    if markup == "plain":
        return _reading(parts(), path), total
    text = normalize("".join(_reading(parts(), path)), markup)
    if not text:
        raise InputError(f"{path}: nothing to say besides marks, addresses and code; --markup plain reads it as it is")
    return iter([text]), count_characters(text)


def read_script(path: str, voices: dict[str, Any], markup: Markup | None = None) -> list[Line]:
    """The lines of a script file; checks that every speaker has a voice. "-" is standard input.

    Args:
        markup: of the text of each line, not of the script; None does not change it.
    """
    if path == "-":
        text = "".join(_reading(sys.stdin, "standard input"))
    else:
        with open(expand(path), encoding="utf-8-sig") as file:
            text = "".join(_reading(_blocks(file), path))
    lines = list(parse_script(text))
    for line in lines:
        find_speaker(line, voices)
    return lines if markup is None else [replace(line, text=normalize(line.text, markup)) for line in lines]


def read_cast(cast: list[str] | None) -> dict[str, Any]:
    """The voices of `--cast NAME=VOICE`; None for "NAME=", a random voice. Files are read, names are kept as names."""
    voices: dict[str, Any] = {}
    for entry in cast or []:
        name, equals, voice = (part.strip() for part in entry.partition("="))
        if not name or not equals:
            raise InputError(f"--cast is {entry!r}; expected NAME=VOICE, or NAME= for a voice that is drawn")
        if name in voices:
            raise InputError(f"--cast: {name} has two voices; expected one")
        voices[name] = load_voice(voice) if voice.endswith(".npz") else voice or None
    return voices
