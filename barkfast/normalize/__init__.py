"""Text as it is meant to be read aloud, for any model: no invisible characters, no markup."""

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
