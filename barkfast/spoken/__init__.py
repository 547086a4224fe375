"""Text as the demo voice can say it: words in small letters, and four marks."""

from barkfast.spoken.english import check_english, is_silent, spell_out

__all__ = ["check_english", "is_silent", "spell_out"]
