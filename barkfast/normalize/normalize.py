"""The one step between a text as it is written and a text as it is read aloud."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from barkfast.errors import InputError
from barkfast.normalize.invisible import clean, drop_invisible

Markup = Literal["plain", "markdown"]
MARKUPS: tuple[str, ...] = get_args(Markup)


def check_markup(markup: object) -> None:
    """Raise InputError for a markup that is not known."""
    if markup not in MARKUPS:
        raise InputError(f"markup is {markup!r}; expected one of {', '.join(map(repr, MARKUPS))}")


def check_parts(text: object) -> None:
    """Raise InputError for what does not yield str."""
    if isinstance(text, bytes | bytearray) or not isinstance(text, Iterable):
        raise InputError(f"text is a {type(text).__name__}; expected a str, or an iterable of str such as a file")


def normalize(text: str, markup: Markup = "plain") -> str:
    """A text as it is read aloud, for any model.

    Args:
        markup: "plain" drops invisible characters and makes all line ends `\\n`. "markdown" also reads Markdown as
            people do, see docs/long-text.md: headings, list items and table rows become lines with a full stop.

    Raises:
        InputError: another markup, or no str.
    """
    check_markup(markup)
    if not isinstance(text, str):
        raise InputError(f"text is a {type(text).__name__}; expected a str, or normalize_stream for parts of one")
    if markup == "plain":
        return drop_invisible(text)
    from barkfast.normalize.markdown import find_links, read_markdown

    return "".join(read_markdown([text], find_links(text)))


def normalize_stream(text: Iterable[str], markup: Markup = "plain") -> Iterator[str]:
    """As `normalize`, for a text in parts of any size (a file, say), in constant memory.

    Of Markdown a link whose address is defined further down stays as it is written, `[text][label]`.

    Raises:
        InputError: as `normalize`, at once; on the way for parts that are no str.
    """
    check_markup(markup)
    check_parts(text)
    if markup == "plain":
        return clean(text)
    from barkfast.normalize.markdown import read_markdown

    return read_markdown(text)
