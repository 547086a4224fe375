"""Replace the characters of any text by those of English, where there is an equivalent."""

import unicodedata

from barkfast.normalize.invisible import drop_invisible

# Letters of the Latin script that are not a base letter with an accent, and their replacements.
_LETTERS = {
    **{"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "ŋ": "ng", "ŧ": "t"},
    **{"ð": "th", "þ": "th", "ẞ": "SS", "Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D", "Ħ": "H", "Ŋ": "NG"},
    **{"Ŧ": "T", "Ð": "TH", "Þ": "TH", "ə": "e", "Ə": "E"},
}
_MARKS = {
    **dict.fromkeys("‘’‚‛ʼʻ′`´", "'"),
    **dict.fromkeys('“”„‟«»‹›″"', " "),
    **dict.fromkeys("‐‑−﹣－", "-"),
    **dict.fromkeys("–—―‒⸺", " – "),
    **{"²": " squared ", "³": " cubed ", "№": " number ", "×": " times ", "÷": " divided by ", "±": " plus or minus "},
    **{"⁄": "/", "。": ". ", "、": ", ", "¿": "", "¡": "", "™": "", "®": "", "©": "", "µ": "micro"},
}
_TABLE = str.maketrans(_LETTERS | _MARKS)


def _simplify(character: str) -> str:
    """Replace a character outside ASCII and the tables above: strip its accents, or decompose it."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    parts = unicodedata.normalize("NFKD", character)
    # A fraction such as one half is separated from the digits before it.
    space = " " if "⁄" in parts else ""
    return space + "".join(part for part in parts if not unicodedata.combining(part)).translate(_TABLE)


def simplify(text: str) -> str:
    """Convert a text to ASCII; characters without an equivalent stay. A dash between words becomes ` – `."""
    # Compose first, so that a letter and its accent are one character.
    text = unicodedata.normalize("NFC", drop_invisible(text)).translate(_TABLE)
    return text if text.isascii() else "".join(c if c.isascii() or c == "–" else _simplify(c) for c in text)


def find_foreign(text: str) -> list[str]:
    """The letters of a text that English does not have, each once."""
    letters = (c for c in unicodedata.normalize("NFC", text) if c.isalpha() and not c.isascii())
    return list(dict.fromkeys(letters))
