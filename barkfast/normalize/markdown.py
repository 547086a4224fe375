"""Convert Markdown to text for speech: what a page shows, without markup, addresses and code."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from barkfast.normalize.html_text import read_html, strip_tags
from barkfast.normalize.invisible import read_lines
from barkfast.normalize.markdown_blocks import cut_portions
from barkfast.normalize.punctuation import SOUND_TAG, end_mark, is_wide

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# Noncharacters that replace the brackets of sound tags while Markdown is parsed: `[laughs]` is not a link, whatever
# follows it.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_HELD_TAG = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_DEFINITION = re.compile(r" {0,3}\[([^\]\[]+)\]:[ \t]*(\S+)?")
# An address, as opposed to the first word of a sentence.
_ADDRESS = re.compile(r"<|#\w|\w+:\S|\.{0,2}/\w|[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}|\S+/\S*\.\w+")
_NOTE = re.compile(r" {0,3}\[\^[^\]\s]+\]:[ \t]*")
_NOTE_MARK = re.compile(r" ?\[\^[^\]\s]+\]")
_TASK = re.compile(r"\A\[[ xX]\]\s+")
_URL = re.compile(r"\b(?:https?|ftp)://(?:[^\s/@]*@)?(?:www\.)?([^\s/?#:<>]+)(?:[^\s<>]*[^\s<>.,;:!?)\]}'\"*_])?")


@lru_cache(maxsize=1)
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    # Indented text is not code here: verse is indented more often than code.
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).disable("code")


def read_markdown(text: Iterable[str], links: dict[str, Any] | None = None) -> Iterator[str]:
    """Yield a Markdown text as text for speech: blocks that end in a mark, with a blank line between them.

    Args:
        text: in parts of any size.
        links: link definitions that come later in the text than their use, see `find_links`.
    """
    environment: dict[str, Any] = {"references": dict(links or {})}
    held = ""
    for portion in cut_portions(text):
        for block in _Reader(environment).read(portion):
            if held:
                yield f"{held}{end_mark(held)}\n\n"
            held = block
    if held:
        yield held


def find_links(text: str) -> dict[str, Any]:
    """The link definitions of a whole text, as `read_markdown` takes them."""
    lines = (line for line in read_lines(text, 1 << 14) if _DEFINITION.match(line))
    environment: dict[str, Any] = {}
    _parser().parse("\n\n".join(map(_prepare_line, lines)), environment)
    return environment.get("references", {})


def _prepare_line(line: str) -> str:
    """Prepare a line for the parser: no footnote marks, and only link definitions look like link definitions."""
    line = SOUND_TAG.sub(lambda match: f"{_OPEN}{match[0][1:-1]}{_CLOSE}", line)
    note = _NOTE.match(line)
    line = _NOTE_MARK.sub("", line[note.end() :] if note else line)
    definition = _DEFINITION.match(line)
    if definition and not (definition[2] and _ADDRESS.match(definition[2])):
        line = line.replace("[", "\\[", 1)
    return line


def _shorten(match: re.Match[str]) -> str:
    """Replace an address by the name of its site."""
    return match[1]


def _finish(text: str) -> str:
    """Restore the brackets of sound tags, shorten addresses, and normalize whitespace, in one or more lines."""
    text = _URL.sub(_shorten, _HELD_TAG.sub(r"[\1]", text))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _stopped(text: str) -> str:
    """Add a full stop to a line that is a sentence of its own, unless it has a mark."""
    text = text.rstrip(" ,;，；、")
    return text + end_mark(text)


class _Reader:
    """Reads one portion.

    Args:
        environment: link definitions of the earlier portions; those of this one are added.
    """

    def __init__(self, environment: dict[str, Any]) -> None:
        self._environment = environment
        self._blocks: list[str] = []
        # Lines of the current list or table; `_marker` is the number of the next item, or empty.
        self._lines: list[str] = []
        self._cells: list[str] = []
        self._depth = 0
        self._marker = ""

    def read(self, portion: str) -> list[str]:
        """The blocks of the portion, each of one or more lines."""
        source = "".join(map(_prepare_line, portion.splitlines(keepends=True)))
        around = ""
        for token in _parser().parse(source, self._environment):
            match token.type:
                case "inline":
                    self._add(_finish(self._inline(token.children or [])), around)
                case "html_block":
                    lines = _finish(read_html(token.content)).split("\n")
                    self._add("\n".join(map(_stopped, lines)), "")
                case "list_item_open":
                    self._marker = f"{token.info}{token.markup} " if token.info else ""
                case "bullet_list_open" | "ordered_list_open" | "table_open":
                    self._depth += 1
                case "bullet_list_close" | "ordered_list_close" | "table_close":
                    self._depth -= 1
                    self._close()
                case "tr_close":
                    self._end_row()
                case "heading_open" | "paragraph_open" | "td_open" | "th_open":
                    around = token.tag
        self._close()
        return self._blocks

    def _add(self, text: str, around: str) -> None:
        """Add the text of a paragraph, a heading, a cell or an HTML block."""
        if around in ("td", "th"):
            self._cells.append(text)
        elif self._depth and text:
            self._lines.append(self._marker + _stopped(_TASK.sub("", text)))
            self._marker = ""
        elif text:
            self._blocks.append(_stopped(text) if around.startswith("h") else text)

    def _end_row(self) -> None:
        """Add a row of a table as one sentence."""
        cells = [cell.replace("\n", " ") for cell in self._cells if cell]
        row = "".join(cell + (" " if not end_mark(cell) else ", ") for cell in cells[:-1]) + "".join(cells[-1:])
        if row:
            self._lines.append(_stopped(row))
        self._cells = []

    def _close(self) -> None:
        """Add the lines as a block at the end of the outermost list or table."""
        if not self._depth and self._lines:
            self._blocks.append("\n".join(self._lines))
            self._lines = []

    def _inline(self, children: list[Any]) -> str:
        """The visible text of inline tokens."""
        parts = []
        for token in children:
            match token.type:
                case "text" | "code_inline" | "text_special":
                    parts.append(token.content)
                case "softbreak":
                    parts.append("" if parts and is_wide(parts[-1][-1:] or " ") else " ")
                case "hardbreak":
                    parts.append("\n")
                case "image":
                    parts.append(self._inline(token.children or []))
                case "html_inline":
                    parts.append(strip_tags(token.content))
        return "".join(parts)
