"""Cut a Markdown text between blocks into portions that are read one by one, so that it need not be in memory whole."""

import re
from collections.abc import Iterable, Iterator

from barkfast.normalize.invisible import read_lines

# In characters. A longer block is cut: a fence or a table then starts again.
_LONGEST_LINE = 1 << 12
_LONGEST = 1 << 15
_FENCE = re.compile(r"(?:\s{0,3}|\s*(?:[-*+]|\d+[.)])\s+)(`{3,}(?=[^`]*$)|~{3,})")
# What continues over blank lines until its end: a comment, and elements whose content is not Markdown.
_HTML = re.compile(r" {0,3}<(?:(!--)|(script|style|pre|textarea)\b)", re.IGNORECASE)
_FRONT = re.compile(r"[\w-]+\s*:(?:\s|$)")


class _Region:
    """A fence, a comment or the like, in which a blank line does not end the block."""

    def __init__(self, opener: str, end: re.Pattern[str]) -> None:
        self.opener, self.end = opener, end


def _open_region(line: str) -> _Region | None:
    """The region that a line opens and does not close."""
    if fence := _FENCE.match(line):
        mark = fence[1]
        return _Region(line.lstrip(), re.compile(rf"\s*{re.escape(mark[0])}{{{len(mark)},}}\s*$"))
    if html := _HTML.match(line):
        end = re.compile("-->" if html[1] else rf"</{html[2]}>", re.IGNORECASE)
        opener = html[0] if html[1] else f"{html[0]}>\n"
        return None if end.search(line, html.end()) else _Region(opener, end)
    return None


def _drop_front_matter(lines: Iterator[str]) -> Iterator[str]:
    """Drop front matter: the settings between `---` and `---` at the beginning of a file."""
    first = next(lines, "")
    if first.rstrip() != "---":
        yield first
        yield from lines
        return
    held = [first]
    for line in lines:
        held.append(line)
        if len(held) > 2 and line.rstrip() in ("---", "..."):
            yield from lines
            return
        if (len(held) == 2 and not _FRONT.match(line)) or len(held) > 200:
            break
    yield from held
    yield from lines


def cut_portions(text: Iterable[str]) -> Iterator[str]:
    """Yield the text in portions of whole blocks; they do not depend on how it is cut into parts."""
    held: list[str] = []
    size, blank = 0, False
    region: _Region | None = None
    for line in _drop_front_matter(read_lines(text, _LONGEST_LINE)):
        # An indented line may belong to the list above.
        ends = blank and region is None and not line[:1].isspace()
        if held and (ends or size + len(line) > _LONGEST):
            yield "".join(held)
            held, size = [region.opener] if region else [], 0
        held.append(line)
        size += len(line)
        blank = not line.strip()
        if region is None:
            region = _open_region(line)
        elif region.end.search(line):
            region = None
    if held:
        yield "".join(held)
