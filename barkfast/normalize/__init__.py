"""Prepare text for speech, for any model: remove invisible characters and markup."""

from barkfast.normalize.invisible import drop_invisible
from barkfast.normalize.normalize import MARKUPS, Markup, check_markup, normalize, normalize_stream
from barkfast.normalize.punctuation import SOUND_TAGS, end_mark

__all__ = [
    "MARKUPS",
    "SOUND_TAGS",
    "Markup",
    "check_markup",
    "drop_invisible",
    "end_mark",
    "normalize",
    "normalize_stream",
]
