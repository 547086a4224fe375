"""Spell out English text: numbers, money, dates, abbreviations and signs become words, anything else is dropped."""

import logging
import re
from functools import lru_cache

from barkfast.errors import InputError
from barkfast.normalize.characters import find_foreign, simplify
from barkfast.normalize.rules import apply_rules

logger = logging.getLogger(__name__)

# Of several marks in a row, the one that comes first here is kept.
_MARKS = "?!.,"
_LONGEST_WORD = 32
_PIECE = 16
# Letters with a warning already: a book may have them on every page.
_known: set[str] = set()


@lru_cache(maxsize=64)
def spell_out(text: str) -> str:
    """Convert a text to `a` to `z`, `'`, spaces and `,.?!`; empty if it has nothing that can be spoken.

    A text that is already spelled out does not change.
    """
    # Repeat, because the result may form another abbreviation; it ends, because each time there are fewer full stops.
    while (spelled := _spell_once(text)) != text:
        text = spelled
    return text


def is_silent(text: str) -> bool:
    """Whether a text has only what is dropped: signs, and Bark's tags such as `[laughs]`."""
    return not spell_out(text) and not find_foreign(text)


def check_english(text: str) -> None:
    """Warn of letters that English does not have, once for each.

    Raises: InputError for a text in another script, or with nothing that can be spoken.
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
    # The full stop of an abbreviation may also end the sentence.
    stop = "." if text.rstrip().endswith(".") else ""
    text = apply_rules(simplify(text)).lower() + stop
    text = re.sub(r"[^a-z',.?!]+", " ", text)
    # Drop quotes, but keep apostrophes within words.
    text = re.sub(r"(?<![a-z])'|'(?![a-z])", "", text)
    text = re.sub(r"[\s,.?!]*[,.?!][\s,.?!]*", lambda match: f"{_strongest(match[0])} ", text)
    text = re.sub(r"([a-z])\1{3,}", r"\1\1", text)
    text = re.sub(rf"[a-z]{{{_LONGEST_WORD + 1},}}", _cut, text)
    return text.lstrip(" ,.?!").rstrip()


def _strongest(marks: str) -> str:
    return next(mark for mark in _MARKS if mark in marks)


def _cut(match: re.Match[str]) -> str:
    """Cut a match that is too long for a word into pieces of about the same length."""
    word = match[0]
    n_pieces = -(-len(word) // _PIECE)
    size = -(-len(word) // n_pieces)
    return " ".join(word[i : i + size] for i in range(0, len(word), size))
