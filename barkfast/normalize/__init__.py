"""Prepare text for speech, for any model: remove invisible characters and markup."""

from barkfast.normalize.invisible import drop_invisible
from barkfast.normalize.marks import SOUND_TAGS, end_mark
from barkfast.normalize.normalize import MARKUPS, Markup, check_markup, normalize, normalize_stream

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
