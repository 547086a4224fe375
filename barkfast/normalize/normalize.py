"""Convert a written text to a text for speech."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from barkfast.errors import InputError
from barkfast.normalize.invisible import clean, drop_invisible

Markup = Literal["plain", "markdown"]
MARKUPS: tuple[str, ...] = get_args(Markup)


def check_markup(markup: object) -> None:
    """Raise InputError for an unknown markup."""
    if markup not in MARKUPS:
        raise InputError(f"markup is {markup!r}; expected one of {', '.join(map(repr, MARKUPS))}")


def check_parts(text: object) -> None:
    """Raise InputError for a value that cannot yield str."""
    if isinstance(text, bytes | bytearray) or not isinstance(text, Iterable):
        raise InputError(f"text is a {type(text).__name__}; expected a str, or an iterable of str such as a file")


def normalize(text: str, markup: Markup = "plain") -> str:
    """Prepare a text for speech, for any model.

    Args:
        text: the text as it is written.
        markup: "plain" drops invisible characters and makes all line ends `\\n`. "markdown" also removes the markup,
            see docs/long-text.md: headings, list items and table rows become lines with a full stop.

    Raises:
        InputError: the markup is unknown, or the text is not a str.
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

    A Markdown link whose address is defined further down stays as it is written, `[text][label]`.

    Raises:
        InputError: as `normalize`, immediately; during iteration if a part is not a str.
    """
    check_markup(markup)
    check_parts(text)
    if markup == "plain":
        return clean(text)
    from barkfast.normalize.markdown import read_markdown

    return read_markdown(text)
