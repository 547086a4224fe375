"""Dialogue scripts: who says what."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from barkfast.errors import InputError
from barkfast.normalize import drop_invisible

# "NAME: text". Names begin with a letter and are short, so that a sentence with a colon in it is rarely one.
_CUE = re.compile(r"(?P<name>[^\W\d_][^:：\n]{0,39}?)\s*[:：]\s*(?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a dialogue: a speaker and the text.

    Args:
        number: the number of the script's line where it begins, from 1; in a list, of the entry.
    """

    speaker: str
    text: str
    number: int


def parse_script(script: Any) -> Iterator[Line]:
    """The lines of a dialogue, in order.

    Args:
        script: a str or a file (or anything that yields lines) in which "NAME: text" begins a speaker's text, lines
            that are indented or have no name continue it, and lines that begin with # are comments; or an iterable
            of (name, text) pairs or of {"speaker": name, "text": text}.

    Raises:
        InputError: a line has no speaker, or a speaker has no text; the message has the line's number.
    """
    if isinstance(script, bytes | bytearray) or not isinstance(script, Iterable):
        raise InputError(f"script is a {type(script).__name__}; expected a str, lines, or a list of (name, text)")
    speaker, number, texts = "", 0, [""]
    for index, entry in enumerate(script.splitlines() if isinstance(script, str) else script, start=1):
        if isinstance(entry, str):
            entry = drop_invisible(entry)
            if not entry.strip() or entry.lstrip().startswith("#"):
                continue
            cue = None if entry[0].isspace() else _CUE.match(entry)
            if cue is None:
                if not speaker:
                    raise InputError(
                        f"script, line {index}: {entry.strip()[:60]!r} has no speaker; expected 'NAME: what is said'"
                    )
                texts.append(entry.strip())
                continue
            name, text = cue["name"], cue["text"]
        else:
            name, text = _read_entry(entry, index)
        if speaker:
            yield _line(speaker, texts, number)
        speaker, number, texts = name, index, [text.strip()]
    if not speaker:
        raise InputError("the script is empty; expected lines of the form 'NAME: what is said'")
    yield _line(speaker, texts, number)


def _read_entry(entry: Any, index: int) -> tuple[str, str]:
    """Name and text of an entry that is not a str."""
    if isinstance(entry, Mapping) and {"speaker", "text"} <= entry.keys():
        entry = entry["speaker"], entry["text"]
    if (
        not isinstance(entry, tuple | list)
        or len(entry) != 2
        or not all(isinstance(part, str) for part in entry)
        or not entry[0].strip()
    ):
        raise InputError(f"script, entry {index} is {str(entry)[:60]!r}; expected a pair (name, text) of str")
    return entry[0].strip(), entry[1]


def _line(speaker: str, texts: list[str], number: int) -> Line:
    text = "\n".join(part for part in texts if part)
    if not text:
        raise InputError(f"script, line {number}: {speaker} says nothing; expected text after the colon")
    return Line(speaker, text, number)


def find_speaker(line: Line, speakers: Iterable[str]) -> str:
    """The speaker's name as it is spelled in `speakers`, ignoring case.

    Raises:
        InputError: the name is unknown; the message has the line's number and the nearest name.
    """
    known = list(speakers)
    if line.speaker in known:
        return line.speaker
    folded = {name.casefold(): name for name in known}
    if line.speaker.casefold() in folded:
        return folded[line.speaker.casefold()]
    near = difflib.get_close_matches(line.speaker.casefold(), folded, n=1)
    hint = f"did you mean {folded[near[0]]!r}? " if near else ""
    raise InputError(
        f"script, line {line.number}: unknown speaker {line.speaker!r}; {hint}Expected one of "
        f"{', '.join(known) or '(nobody has a voice)'}. Give it a voice, or indent the line if it goes on with the "
        "one before"
    )
