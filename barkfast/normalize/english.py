"""English text spelled out: numbers, money, dates, abbreviations and signs as words, everything else left out."""

import logging
import re
from functools import lru_cache

from barkfast.errors import InputError
from barkfast.normalize.characters import find_foreign, simplify
from barkfast.normalize.rules import apply_rules

logger = logging.getLogger(__name__)

# Of several marks in a row the first of these is said.
_MARKS = "?!.,"
_LONGEST_WORD = 32
_PIECE = 16
# Letters that were warned of already: a book has them on every page.
_known: set[str] = set()


@lru_cache(maxsize=64)
def spell_out(text: str) -> str:
    """A text in `a` to `z`, `'`, spaces and `,.?!`; empty if there is nothing in it that can be said.

    What has been spelled out once stays as it is.
    """
    # Again where what is left makes an abbreviation; each time there are fewer full stops.
    while (spelled := _spell_once(text)) != text:
        text = spelled
    return text


def is_silent(text: str) -> bool:
    """Whether a text is made up of what is left out: signs, and Bark's marks such as `[laughs]`."""
    return not spell_out(text) and not find_foreign(text)


def check_english(text: str) -> None:
    """Warn of letters that English does not have, once for each.

    Errors: InputError for a text in another script, and for one in which there is nothing to say.
    """
    foreign = find_foreign(text)
    if foreign and not re.search("[A-Za-z]", simplify(text)):
        raise InputError(f"text is {text[:80]!r}: the demo voice speaks English; use suno/bark for other languages")
    if not spell_out(text):
        raise InputError(f"text is {text[:80]!r}: nothing in it can be said; expected English words or numbers")
    if new := [letter for letter in foreign if letter not in _known]:
        _known.update(new)
        shown = " ".join(new[:20]) + (" ..." if len(new) > 20 else "")
        logger.warning("the demo voice speaks English: %s will be said as English letters, or left out", shown)


def _spell_once(text: str) -> str:
    # The full stop of an abbreviation may end the sentence too.
    stop = "." if text.rstrip().endswith(".") else ""
    text = apply_rules(simplify(text)).lower() + stop
    text = re.sub(r"[^a-z',.?!]+", " ", text)
    # Quotes are not said; what is within a word is.
    text = re.sub(r"(?<![a-z])'|'(?![a-z])", "", text)
    text = re.sub(r"[\s,.?!]*[,.?!][\s,.?!]*", lambda match: f"{_strongest(match[0])} ", text)
    text = re.sub(r"([a-z])\1{3,}", r"\1\1", text)
    text = re.sub(rf"[a-z]{{{_LONGEST_WORD + 1},}}", _cut, text)
    return text.lstrip(" ,.?!").rstrip()


def _strongest(marks: str) -> str:
    return next(mark for mark in _MARKS if mark in marks)


def _cut(match: re.Match[str]) -> str:
    """A word too long to be one in pieces of about the same length."""
    word = match[0]
    n_pieces = -(-len(word) // _PIECE)
    size = -(-len(word) // n_pieces)
    return " ".join(word[i : i + size] for i in range(0, len(word), size))
