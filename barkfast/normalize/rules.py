"""Replace what is not a word by the words that are spoken for it: numbers, money, units, abbreviations, signs."""

import re
from collections.abc import Callable
from re import Match

from barkfast.normalize.numbers import (
    LARGEST,
    MONTHS,
    make_plural,
    spell_digits,
    spell_number,
    spell_ordinal,
    spell_time,
    spell_written,
    spell_year,
)
from barkfast.normalize.punctuation import SOUND_TAG

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"{_NUMBER}(?:\.\d+)?"
_MONTH_NAMES = {month[:n]: month for month in MONTHS for n in (3, 4, len(month))}
_MONTH = r"(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|" + "|".join(m.capitalize() for m in MONTHS) + r")\b\.?"

_COINS = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_COINS |= {"¥": ("yen", ""), "₹": ("rupee", "paisa")}
_SCALES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion"}
_UNITS = {
    **{"km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "mi": "mile", "ft": "foot"},
    **{"in.": "inch", "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce"},
    **{"l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter", "h": "hour", "hr": "hour", "hrs": "hour"},
    **{
        "min": "minute",
        "s": "second",
        "sec": "second",
        "ms": "millisecond",
        "W": "watt",
        "kW": "kilowatt",
        "V": "volt",
    },
    **{"Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "kB": "kilobyte", "KB": "kilobyte"},
    **{"MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "°C": "degree celsius", "°F": "degree fahrenheit"},
    **{"°": "degree", "%": "percent", "mph": "mile per hour", "km/h": "kilometer per hour", "m/s": "meter per second"},
}

_TITLES = {"Mr": "mister", "Mrs": "missus", "Ms": "miss", "Dr": "doctor", "Prof": "professor"}
# With a full stop, in upper or lower case.
_SHORT = {
    **{"mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "jr": "junior", "sr": "senior"},
    **{"capt": "captain", "sgt": "sergeant", "lt": "lieutenant", "dept": "department", "approx": "approximately"},
    **{"ave": "avenue", "blvd": "boulevard", "rd": "road", "ltd": "limited", "inc": "incorporated", "mt": "mount"},
    **{"corp": "corporation", "etc": "et cetera", "vs": "versus", "tel": "telephone"},
}
# Before a number, as in "No. 5".
_PLACES = {
    "no": "number",
    "nos": "numbers",
    "vol": "volume",
    "ch": "chapter",
    "fig": "figure",
    "p": "page",
    "pp": "pages",
}
# Spelled letter by letter although they have a vowel; capitals without a vowel always are.
_INITIALS = "USA|US|UK|EU|UN|AI|API|CPU|GPU|TPU|URL|USB|UFO|CEO|FBI|CIA|IBM|IP|IQ|ID"
_SOUNDS = "HMM|SHH|PSST|BRR"


def _spell_decimal(text: str) -> str:
    whole, _, part = text.partition(".")
    return spell_written(whole) + (f" point {spell_digits(part)}" if part else "")


def _count(number: str, word: str) -> str:
    """`1`, `foot` -> `one foot`; only the first word of a unit has a plural."""
    first, _, rest = word.partition(" ")
    return " ".join(filter(None, (_spell_decimal(number), first if number == "1" else make_plural(first), rest)))


def _money(match: Match[str]) -> str:
    sign, amount = match["sign"] or match["behind"], match["amount"]
    whole_coin, part_coin = _COINS[sign]
    scale = match["scale"]
    if scale:
        return f"{_spell_decimal(amount)} {_SCALES.get(scale.lower(), scale)} {make_plural(whole_coin)}"
    whole, _, part = amount.partition(".")
    if len(part) != 2 or not part_coin:
        return _count(amount, whole_coin)
    coins = [_count(whole, whole_coin)] if int(whole.replace(",", "")[:16]) or part == "00" else []
    coins += [_count(str(int(part)), part_coin)] if part != "00" else []
    return " and ".join(coins)


def _month(name: str, year: str | None) -> str:
    month = _MONTH_NAMES[name.lower()]
    return f"{month}, {_year(year)}" if year else month


def _day(month: str, day: str, year: str | None) -> str:
    date = f"{month} {spell_ordinal(int(day))}"
    return f"{date}, {_year(year)}" if year else date


def _year(digits: str) -> str:
    return spell_year(int(digits)) if 1100 <= int(digits) <= 2099 else spell_written(digits)


def _named_date(match: Match[str]) -> str:
    return _day(_MONTH_NAMES[match[1].lower()], match[2], match[3])


def _numbered_date(match: Match[str]) -> str:
    month, day = int(match["month"]), int(match["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0].replace("/", " ").replace("-", " ")
    return _day(MONTHS[month - 1], str(day), match["year"])


def _time(match: Match[str]) -> str:
    hour, minute, second, half = int(match[1]), int(match[2] or 0), match[3], match[4]
    words = spell_number(hour) if half and not minute else spell_time(hour, minute)
    words += f" and {_count(str(int(second)), 'second')}" if second else ""
    return f"{words} {half.lower()} m" if half else words


def _fraction(match: Match[str]) -> str:
    whole, above, below = match[1], int(match[2]), int(match[3])
    name = {2: "half", 4: "quarter"}.get(below) or spell_ordinal(below)
    many = {"half": "halves"}.get(name, f"{name}s")
    words = f"{spell_number(above)} {name if above == 1 else many}"
    return f"{spell_written(whole)} and {words}" if whole else words


def _join(match: Match[str]) -> str:
    """Numbers with hyphens between them: two are a range, more are a list."""
    parts = re.split(r"\s?[-–]\s?", match[0])
    return f"{parts[0]} to {parts[1]}" if len(parts) == 2 else ", ".join(parts)


def _telephone(match: Match[str]) -> str:
    return ", ".join(spell_digits(part) for part in re.findall(r"\d+", match[0]))


def _decade(match: Match[str]) -> str:
    *head, last = spell_year(int(match[1])).split() if len(match[1]) == 4 else [spell_number(int(match[1]))]
    return " ".join([*head, make_plural(last)])


def _saint(match: Match[str]) -> str:
    """`St. Louis`, `Main St.` or `Main St. is`."""
    before, after = match[1] or "", (match[2] or "").strip()
    saint = after and (after.isupper() or not before)
    return before + ("saint" if saint else "street")


def _initials(match: Match[str]) -> str:
    return " ".join(match[1]) + ("'s" if match[2] else "")


def _rule(
    pattern: str, say: Callable[[Match[str]], str] | str, flags: int = 0
) -> tuple[re.Pattern[str], Callable[[Match[str]], str]]:
    """A pattern and its replacement, between spaces."""
    return re.compile(pattern, flags), lambda match: f" {say if isinstance(say, str) else say(match)} "


def _ordinal(digits: str) -> str:
    number = int(digits.replace(",", "")[:16])
    return spell_ordinal(number) if number <= LARGEST else f"{spell_written(digits)}th"


# Applied in this order: each rule sees the result of the rules before it.
RULES = (
    # Runs of digits too long for a number; first, so that the rules below only match short runs.
    _rule(r"(?<![\d.])(\d{0,15})\.(\d{16,})", lambda match: f"{match[1]} point {spell_digits(match[2])}"),
    _rule(r"(?<!\d)\d{16,}", lambda match: spell_digits(match[0])),
    # Bark's sound tags, addresses, and dots that do not end a sentence.
    _rule(rf"{SOUND_TAG.pattern}|♪", "", SOUND_TAG.flags),
    _rule(r"\bhttps?://", ""),
    _rule(r"\bwww\.", "w w w dot"),
    _rule(r"(?<=[A-Za-z0-9])\.(?=(?:com|org|net|edu|gov|io|uk|de)\b)", "dot"),
    _rule(r"\be\.\s?g\.|\be\.g\b", "for example", re.IGNORECASE),
    _rule(r"\bi\.\s?e\.|\bi\.e\b", "that is", re.IGNORECASE),
    _rule(r"(\b[A-Z][a-z]+ )?\b[Ss]t\.(?=( [A-Z]| [a-z])?)", _saint),
    _rule(rf"\b({'|'.join(_TITLES)})\b\.?", lambda match: _TITLES[match[1]]),
    _rule(rf"\b({'|'.join(_SHORT)})\.", lambda match: _SHORT[match[1].lower()], re.IGNORECASE),
    _rule(rf"\b({'|'.join(_PLACES)})\.\s?(?=\d)", lambda match: _PLACES[match[1].lower()], re.IGNORECASE),
    _rule(r"\bO\.?K\b\.?", "okay"),
    # Dates and times.
    _rule(r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b", _numbered_date),
    _rule(r"\b(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})\b", _numbered_date),
    _rule(rf"\b{_MONTH} ([12]?\d|3[01])(?:st|nd|rd|th)?\b(?:,? ([12]\d{{3}})\b)?(?![,.:]?\d)", _named_date),
    _rule(
        rf"\b(?:[Tt]he )?([12]?\d|3[01])(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? ([12]\d{{3}})\b)?",
        lambda match: f"the {spell_ordinal(int(match[1]))} of " + _month(match[2], match[3]),
    ),
    _rule(rf"\b{_MONTH} ([12]\d{{3}})\b", lambda match: _month(match[1], match[2])),
    _rule(r"(?<=\d)\s?[-–]\s?(?=\d\d?:\d\d)", "to"),
    _rule(r"\b([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?:\s?([APap])\.?\s?[Mm]\b\.?)?(?!\d)", _time),
    _rule(r"\b(1[0-2]|\d)()()\s?([APap])\.?\s?[Mm]\b\.?", _time),
    _rule(r"\b(\d+):(\d+)\b", lambda match: f"{match[1]} to {match[2]}"),
    # Numbers that belong together.
    _rule(r"(?<![\d-])(?:\d{3}-)?\d{3}-\d{4}(?![\d-])", _telephone),
    _rule(r"(?<![\w.,/])(?:(\d{1,2}) )?(\d)/(10|[2-68])(?![\d/])", _fraction),
    _rule(r"(?<=\d)/(?=\d)", " "),
    _rule(rf"(?P<sign>[$£€¥₹])({_DECIMAL})\s?[-–]\s?(?P=sign)?(?=\d)", lambda match: f"{match[2]} to {match[1]}"),
    _rule(r"(?<![\w.,])\d+(?:\s?[-–]\s?\d+)+(?![\d.,]*\d)", _join),
    _rule(r"(?:(?<!\w)'(?=\d\ds)|(?<=\b[Tt]he )(?=\d\ds)|(?<!\w)(?=\d{4}))(\d0|1[1-9]\d0|20\d0)'?s\b", _decade),
    # Money and measures.
    _rule(
        rf"(?P<sign>[$£€¥₹])\s?(?P<amount>{_DECIMAL})(?P<behind>)"
        r"(?:\s?(?P<scale>hundred|thousand|million|billion|trillion|(?<=\d)(?:k|K|m|M|bn|b|B))\b)?",
        _money,
    ),
    _rule(rf"(?P<sign>)(?P<amount>{_DECIMAL})\s?(?P<behind>[$£€¥₹])(?P<scale>)", _money),
    _rule(
        rf"(?<![\w.,])(?P<minus>-?)(?P<number>{_DECIMAL})\s?"
        rf"(?P<unit>{'|'.join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))})(?![A-Za-z0-9])",
        lambda match: ("minus " if match["minus"] else "") + _count(match["number"], _UNITS[match["unit"]]),
    ),
    # Other numbers.
    _rule(rf"(?<!\w)({_NUMBER})(?:st|nd|rd|th)\b", lambda match: _ordinal(match[1])),
    _rule(
        r"\b(in|since|until|till|by|year|before|after|during) (1[1-9]\d\d)\b(?![,.]\d)",
        lambda match: f"{match[1]} {spell_year(int(match[2]))}",
        re.IGNORECASE,
    ),
    _rule(r"(?<![\w.,])(19\d\d|20\d\d)(?![\w]|[,.]\d)", lambda match: spell_year(int(match[1]))),
    _rule(r"(?<=\d)\s*[x*]\s*(?=\d)", "times"),
    _rule(r"(?<=\w)-(?=\w)", " "),
    _rule(r"(?<![\w)-])-(?=\.?\d)", "minus"),
    _rule(r"#(?=\d)", "number"),
    _rule(r"(?<!\w)~\s?(?=\d)", "about"),
    _rule(r"<(?=\s?\d)", "less than"),
    _rule(r">(?=\s?\d)", "more than"),
    _rule(r"\d+(?:\.\d+){2,}", lambda match: " point ".join(map(spell_written, match[0].split(".")))),
    _rule(r"(?<![\d])\.(\d+)", lambda match: f"point {spell_digits(match[1])}"),
    _rule(_DECIMAL, lambda match: _spell_decimal(match[0])),
    # Letters on their own, and signs.
    _rule(r"\b((?:[A-Za-z]\.){2,})(s?\b)?", lambda match: " ".join(match[1].replace(".", ""))),
    _rule(r"\b([A-Z])\. ?(?=[A-Z])", lambda match: match[1]),
    _rule(rf"\b(?!(?:{_SOUNDS})\b)([B-DF-HJ-NP-TV-XZ]{{2,5}})(s?)\b", _initials),
    _rule(rf"\b({_INITIALS})(s?)\b", _initials),
    _rule(r"&", "and"),
    _rule(r"(?<=\w)@(?=\w)", "at"),
    _rule(r"\+", "plus"),
    _rule(r"=", "equals"),
    _rule(r"%", "percent"),
    _rule(r"°", "degrees"),
    _rule(r"\.{2,}|…", "."),
    _rule(r"[:;()–]|\s-+\s|--+", ","),
)


def apply_rules(text: str) -> str:
    """Apply all rules to a text."""
    if text.isupper() and len(text.split()) > 2:
        # A text all in capitals has no initials to spell.
        text = text.lower()
    for pattern, say in RULES:
        text = pattern.sub(say, text)
    return text
