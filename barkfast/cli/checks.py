"""Cheap checks of command line values, made before any model is loaded."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from barkfast.errors import InputError
from barkfast.normalize import Markup, normalize
from barkfast.text import check_text

# A longer text was not meant for one utterance, and standard input may be endless.
MAX_CHARACTERS = 1_000_000


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Put the option's name in front of the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{option}: {error}") from error


def read_text(text: str, markup: Markup | None = None) -> str:
    """The text to speak, checked; "-" reads it from standard input. `markup` None normalizes only whitespace."""
    if text == "-":
        try:
            text = sys.stdin.read(MAX_CHARACTERS + 1)
        except UnicodeDecodeError as error:
            raise InputError(
                f"standard input is not valid {error.encoding}: {error.reason}; convert it first"
            ) from error
        if len(text) > MAX_CHARACTERS:
            raise InputError(
                f"standard input holds more than {MAX_CHARACTERS} characters, and one utterance has room for 256 "
                "tokens; --file - takes a text of any length"
            )
    return check_text(text if markup is None else normalize(text, markup))


def check_option(option: str, name: str, value: object) -> None:
    """Raise InputError, with the option's name, for a value that is invalid as the request's field `name`."""
    from barkfast.options import Request

    with naming(option):
        Request("a", **{name: value})  # type: ignore[arg-type]
