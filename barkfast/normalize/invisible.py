"""Characters that nobody sees, taken out; line ends, all alike."""

import re
from collections.abc import Iterable, Iterator

from barkfast.errors import InputError

_BLOCK = 1 << 16
# Control characters that are no whitespace, format characters (zero width, direction, byte order marks, annotations,
# tags), and variation selectors. The visible signs among the format characters, such as the Arabic number sign, stay.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u034f\u061c\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_NEWLINE = re.compile(r"\r\n|\r(?!\Z)|[\x85\u2028]")
_SHY = "\u00ad"
# Soft hyphens and the two joiners: what they are worth depends on their neighbours. Of a run the last one counts.
_RUN = rf"[{_SHY}\u200c\u200d]"
_REPEATED = re.compile(f"{_RUN}+(?={_RUN})")
_DEPENDS = re.compile(rf"({_RUN})(\n(?=(\S)?))?")
# Nothing before this can change any more, whatever follows.
_TAIL = re.compile(rf"(?:(?!{_RUN}).)?{_RUN}?\n?\r?\Z", re.DOTALL)
# Scripts in which joiners choose the shape of letters (Arabic to Tibetan, Burmese, Khmer, Mongolian and others), and
# pictures that are made up of several.
_JOINING = re.compile("[\u0600-\u109f\u1780-\u18af\u1a20-\u1cff\ua800-\uabff\ufb50-\ufefc\U00010a00-\U00011fff]")
_PICTURE = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff]")


def _blocks(text: str | Iterable[str]) -> Iterator[str]:
    """The parts of a text, none larger than a block."""
    for part in [text] if isinstance(text, str) else text:
        if not isinstance(part, str):
            raise InputError(f"a part of the text is a {type(part).__name__}; expected str")
        for start in range(0, len(part), _BLOCK):
            yield part[start : start + _BLOCK]


def _resolve(match: re.Match[str]) -> str:
    """What is left of a soft hyphen or a joiner, and of the line end after it."""
    character, newline, follows = match.groups()
    text, begin, end = match.string, match.start(), match.end()
    if text[end:] in ("", "\r"):
        # It depends on what is still to come.
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
    """A text without invisible characters, with line ends `\\n`; the same however it is cut into parts.

    Raises:
        InputError: a part that is no str.
    """
    held = ""
    for block in _blocks(text):
        found = _INVISIBLE.sub("", held + block)
        found = _NEWLINE.sub("\n", found).replace("\u2029", "\n\n")
        found = _DEPENDS.sub(_resolve, _REPEATED.sub("", found))
        # It has at most four characters.
        tail = _TAIL.search(found, max(0, len(found) - 4))
        assert tail is not None
        held = tail[0]
        if tail.start():
            yield found[: tail.start()]
    held = re.sub(_RUN, "", held.replace("\r", "\n"))
    if held:
        yield held


def drop_invisible(text: str) -> str:
    """A text without the characters that nobody sees: soft hyphens, zero width, direction, variation selectors.

    Joiners stay where they choose the shape of letters (Persian, Hindi) or make up a picture. A word that a soft hyphen
    breaks at the end of a line becomes whole, and all line ends become `\\n`.
    """
    return "".join(clean(text))


def read_lines(text: str | Iterable[str], longest: int) -> Iterator[str]:
    """The lines of a text, invisible characters dropped, each with its `\\n`; in parts if it is longer than `longest`.

    The lines and the parts are the same however the text is cut.
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
