"""Punctuation that ends a sentence or makes a pause, and Bark's tags for sounds."""

import re
import unicodedata

# Bark's own tags: sounds that are not speech, and a man's or a woman's voice.
SOUND_TAGS = ("laughter", "laughs", "sighs", "music", "gasps", "clears throat", "MAN", "WOMAN")
SOUND_TAG = re.compile(rf"\[\s*(?:{'|'.join(SOUND_TAGS)})\s*\]", re.IGNORECASE)

ENDING_MARKS = ".!?…:。．！？｡：।॥؟۔"
# After these a sentence continues, also on the next line.
GOING_ON = ",;，、､；،؛–—―‒-‐‑~～"
CLOSING = "\"'»”’“)]」』）】》〉*_"


def has_mark(text: str, marks: str) -> bool:
    """Whether a text ends in one of these marks, ignoring closing quotes and brackets."""
    return text.rstrip().rstrip(CLOSING)[-1:] in tuple(marks)


def is_wide(character: str) -> bool:
    """Whether a character is written without spaces around it: Chinese and Japanese, but not Korean."""
    return unicodedata.east_asian_width(character) in ("W", "F") and not "\uac00" <= character <= "\ud7a3"


def end_mark(text: str) -> str:
    """The full stop of its script that a sentence lacks; empty if the sentence ends in a mark, a tag or a sign."""
    last = text.rstrip().rstrip(CLOSING.replace("]", ""))[-1:]
    if not last or not (last.isalnum() or last in "%°€$£" or unicodedata.category(last)[0] == "M"):
        return ""
    if "\u0900" <= last <= "\u097f":
        return "।"
    return "。" if is_wide(last) else "."
