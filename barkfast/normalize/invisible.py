"""Remove invisible characters, and unify line ends."""

import re
from collections.abc import Iterable, Iterator

from barkfast.errors import InputError

_BLOCK = 1 << 16
# Control characters other than whitespace, format characters (zero width, direction, byte order marks, annotations,
# tags), and variation selectors. Visible format characters, such as the Arabic number sign, stay.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u034f\u061c\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_NEWLINE = re.compile(r"\r\n|\r(?!\Z)|[\x85\u2028]")
_SHY = "\u00ad"
# Soft hyphens and the two joiners: their effect depends on their neighbours. In a run only the last one counts.
_RUN = rf"[{_SHY}\u200c\u200d]"
_REPEATED = re.compile(f"{_RUN}+(?={_RUN})")
_DEPENDS = re.compile(rf"({_RUN})(\n(?=(\S)?))?")
# The text before this match is final, whatever follows.
_TAIL = re.compile(rf"(?:(?!{_RUN}).)?{_RUN}?\n?\r?\Z", re.DOTALL)
# Scripts in which joiners select the shape of letters (Arabic to Tibetan, Burmese, Khmer, Mongolian and others), and
# pictures that joiners combine.
_JOINING = re.compile("[\u0600-\u109f\u1780-\u18af\u1a20-\u1cff\ua800-\uabff\ufb50-\ufefc\U00010a00-\U00011fff]")
_PICTURE = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff]")


def _blocks(text: str | Iterable[str]) -> Iterator[str]:
    """The parts of a text, cut to at most `_BLOCK` characters."""
    for part in [text] if isinstance(text, str) else text:
        if not isinstance(part, str):
            raise InputError(f"a part of the text is a {type(part).__name__}; expected str")
        for start in range(0, len(part), _BLOCK):
            yield part[start : start + _BLOCK]


def _resolve(match: re.Match[str]) -> str:
    """The replacement for a soft hyphen or a joiner, and for the line end after it."""
    character, newline, follows = match.groups()
    text, begin, end = match.string, match.start(), match.end()
    if text[end:] in ("", "\r"):
        # It depends on text that has not arrived yet.
        return match[0]
    newline = newline or ""
    if character == _SHY:
        # A word that was broken at the end of a line.
        return "" if follows else newline
    before, after = text[begin - 1 : begin], text[end : end + 1]
    joins = _JOINING.match(before) and _JOINING.match(after)
    pictures = character == "\u200d" and _PICTURE.match(before) and _PICTURE.match(after)
    return character if (joins or pictures) and not newline else newline


def clean(text: str | Iterable[str]) -> Iterator[str]:
    """Yield a text without invisible characters, with line ends `\\n`; its parts do not affect the result.

    Raises:
        InputError: a part is not a str.
    """
    held = ""
    for block in _blocks(text):
        found = _INVISIBLE.sub("", held + block)
        found = _NEWLINE.sub("\n", found).replace("\u2029", "\n\n")
        found = _DEPENDS.sub(_resolve, _REPEATED.sub("", found))
        # The tail has at most four characters.
        tail = _TAIL.search(found, max(0, len(found) - 4))
        assert tail is not None
        held = tail[0]
        if tail.start():
            yield found[: tail.start()]
    held = re.sub(_RUN, "", held.replace("\r", "\n"))
    if held:
        yield held


def drop_invisible(text: str) -> str:
    """Remove the invisible characters of a text: soft hyphens, zero width, direction, variation selectors.

    Joiners stay where they select the shape of letters (Persian, Hindi) or form a picture. A word that a soft hyphen
    breaks at the end of a line is joined, and all line ends become `\\n`.
    """
    return "".join(clean(text))


def read_lines(text: str | Iterable[str], longest: int) -> Iterator[str]:
    """Yield the lines of a text without invisible characters, each with its `\\n`; lines above `longest` in parts.

    The lines and their parts do not depend on how the text is cut.
    """
    held = ""
    for block in clean(text):
        *lines, held = (held + block).split("\n")
        for line in lines:
            yield from _parts(line, longest)
            yield line[_whole(line, longest) :] + "\n"
        if len(held) > longest:
            yield from _parts(held, longest)
            held = held[_whole(held, longest) :]
    if held:
        yield held


def _whole(line: str, longest: int) -> int:
    """Where the last part of a line begins."""
    return max(0, len(line) - 1) // longest * longest


def _parts(line: str, longest: int) -> Iterator[str]:
    """The parts of a line before its last one."""
    yield from (line[start : start + longest] for start in range(0, _whole(line, longest), longest))
