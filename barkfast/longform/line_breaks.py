"""Find which line breaks of a text end a sentence, and which only wrap it."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from barkfast.normalize.invisible import read_lines
from barkfast.normalize.punctuation import ENDING_MARKS, GOING_ON, has_mark, is_wide

# What follows a stretch of text: more of the same line or sentence, an intended line end, or a blank line.
Follows = Literal["more", "line", "paragraph"]

# In columns: texts are not wrapped narrower than this.
_NARROWEST = 40
_COLONS = ":："
_MARKER = re.compile(
    r"\s*(?:(?P<bullet>[-*+•‣◦⁃∙·▪▫■□●○➤►✓✔–—])\s+|(?P<wide>[・●○■□])|\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{2,5})(?P<bracket>\))\s+"
    r"|\d{1,3}(?P<stop>\.)\s+|\d{1,3}(?P<comma>[、．]))(?=\S)"
)
_NUMBER = re.compile(r"\s*\(?\w{1,5}[.)]\s*")


def marker_of(line: str) -> str:
    """The kind of list marker that a line begins with; empty for none."""
    match = _MARKER.match(line)
    return next(filter(None, match.groups()), "") if match else ""


def is_number(text: str) -> bool:
    """Whether a text is nothing but the number of a list item, such as `12.`."""
    return bool(_NUMBER.fullmatch(text)) and (marker_of(text.strip() + " x") != "")


def _columns(text: str) -> int:
    """How wide a text is, Chinese and Japanese characters counted twice."""
    text = text.expandtabs()
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _first_word(line: str) -> str:
    """The part of a line that wrapping would have put on the line before, if there had been room."""
    word = line.split(maxsplit=1)[0]
    return word[0] if is_wide(word[0]) else word


def _initial(line: str) -> str:
    """The first letter or digit of a line, ignoring list markers; empty if it has none."""
    match = _MARKER.match(line)
    return next(filter(str.isalnum, line[match.end() if match else 0 :]), "")


def find_breaks(lines: Sequence[str]) -> list[bool]:
    """Whether each line of a block except the last ends a sentence: n - 1 values for n lines, none of them blank."""
    initials = [_initial(line) for line in lines]
    kinds = [marker_of(line) for line in lines]
    width = max([_NARROWEST, *(_columns(line.rstrip()) for line in lines)])
    # The columns of each line with the first word of the next: in wrapped text that word never fits.
    wanted = [_columns(line.rstrip()) + 1 + _columns(_first_word(after)) for line, after in pairwise(lines)]
    has_room = [columns <= width for columns in wanted]
    # If it often fits, and all lines begin with capitals, line ends are intended: verse, an address, a list of names.
    capitals = all(not letter or letter.isupper() or letter.isdigit() for letter in initials)
    meant = capitals and not any(kinds) and 2 * sum(has_room) >= len(has_room)
    # A wrapped line may begin with a dash too: a list needs an item at the start, after a colon, or after a short line.
    listed = {kinds[0]} if kinds else set()
    listed |= {kinds[i + 1] for i, room in enumerate(has_room) if room or has_mark(lines[i], _COLONS)}

    def breaks(index: int) -> bool:
        if kind := kinds[index + 1]:
            return kind in listed or has_mark(lines[index], ENDING_MARKS)
        if has_mark(lines[index], GOING_ON) or initials[index + 1].islower():
            return False
        return meant or 2 * wanted[index] <= width

    return [breaks(index) for index in range(len(wanted))]


def _seam(before: str, after: str) -> str:
    """The separator between two lines of one sentence."""
    ends, begins = before.rstrip()[-1:], after.lstrip()[:1]
    return "" if ends and begins and is_wide(ends) and is_wide(begins) else " "


class _Block:
    """The lines since the last blank one that were not returned yet."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        # Characters that were not returned yet, and characters of the first line that were.
        self.size = self.done = 0
        # Whether the last line is complete.
        self.ended = True

    def add(self, part: str) -> None:
        """Add a line, or the next part of a long one."""
        text = part.removesuffix("\n")
        if self.ended:
            self.lines.append(text)
        else:
            self.lines[-1] += text
        self.size += len(text)
        self.ended = part.endswith("\n")

    def take(self, last: Follows) -> Iterator[tuple[str, Follows]]:
        """Yield all lines; `last` is what follows the last line, which is kept if more of the block will come."""
        kept = self.lines[-1:] if last == "more" else []
        held = ""
        breaks = find_breaks(self.lines)
        for index, line in enumerate(self.lines[: len(self.lines) - len(kept)]):
            held += line if index else line[self.done :]
            if index < len(breaks) and breaks[index]:
                yield held, "line"
                held = ""
            elif index < len(breaks):
                held += _seam(line, self.lines[index + 1])
        if held or last == "paragraph":
            yield held, last
        self.lines, self.size, self.done = kept, sum(map(len, kept)), 0

    def take_part(self, window: int) -> str:
        """Return the known part of an unfinished line; its last `window` characters are kept for `find_breaks`."""
        part = self.lines[0][self.done :]
        self.lines[0] = self.lines[0][-window:]
        self.size, self.done = 0, len(self.lines[0])
        return part


def read_stretches(text: str | Iterable[str], window: int) -> Iterator[tuple[str, Follows]]:
    """Yield stretches of a text with all whitespace, and what follows each; they do not depend on how it is cut.

    Args:
        window: characters; a stretch has at most about twice as many.
    """
    block = _Block()
    # Whether this line has only whitespace so far.
    blank = True
    for part in read_lines(text, window):
        if not part.isspace():
            block.add(part)
            blank = False
            if block.size >= window and len(block.lines) > 1:
                yield from block.take("more")
            elif block.size >= window and not block.ended:
                yield block.take_part(window), "more"
        elif not blank:
            # One space stands for any amount of whitespace.
            if part.endswith("\n") or not block.lines[-1].endswith(" "):
                block.add(part[-1:] if part.endswith("\n") else " ")
        elif part.endswith("\n") and block.lines:
            yield from block.take("paragraph")
        blank = blank or part.endswith("\n")
    if block.lines:
        yield from block.take("paragraph")
