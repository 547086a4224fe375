"""Numbers, ordinals, years and times as English words, as in the demo voice's training: `twenty one`, no hyphens."""

UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_SIZES = (
    *((10**12, "trillion"), (10**9, "billion"), (10**6, "million")),
    *((1000, "thousand"), (100, "hundred")),
)
_MOST_DIGITS = 15
LARGEST = 10**_MOST_DIGITS - 1
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_PLURALS = {"foot": "feet", "inch": "inches", "penny": "pence"}


def spell_number(n: int) -> str:
    """0 to LARGEST in words: 1205 -> `one thousand two hundred five`."""
    if n < 20:
        return UNITS[n]
    if n < 100:
        return TENS[n // 10] + (f" {UNITS[n % 10]}" if n % 10 else "")
    size, name = next((size, name) for size, name in _SIZES if n >= size)
    head = f"{spell_number(n // size)} {name}"
    return f"{head} {spell_number(n % size)}" if n % size else head


def spell_digits(digits: str) -> str:
    """Digits one by one, as in a telephone number."""
    return " ".join(UNITS[int(digit)] for digit in digits)


def spell_written(digits: str) -> str:
    """A written number, with or without commas; digit by digit if it is too large, or begins with a zero."""
    digits = digits.replace(",", "")
    if len(digits) > _MOST_DIGITS or (digits[0] == "0" and len(digits) > 1):
        return spell_digits(digits)
    return spell_number(int(digits))


def spell_ordinal(n: int) -> str:
    """21 -> `twenty first`."""
    *head, last = spell_number(n).split()
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return " ".join([*head, _ORDINALS.get(last, regular)])


def spell_year(year: int) -> str:
    """1100 to 2099 as years are read: 1984 -> `nineteen eighty four`, 2005 -> `two thousand five`."""
    century, rest = divmod(year, 100)
    if rest == 0:
        return spell_number(year) if century % 10 == 0 else f"{spell_number(century)} hundred"
    if rest < 10:
        return spell_number(year) if century == 20 else f"{spell_number(century)} oh {UNITS[rest]}"
    return f"{spell_number(century)} {spell_number(rest)}"


def spell_time(hour: int, minute: int) -> str:
    """A time of day: 7, 5 -> `seven oh five`."""
    if minute == 0:
        return f"{spell_number(hour)} o'clock"
    return f"{spell_number(hour)} {'oh ' if minute < 10 else ''}{spell_number(minute)}"


def make_plural(word: str) -> str:
    """The plural of a word for a number, a unit or a coin: `fifty` -> `fifties`."""
    if word in _PLURALS or word.endswith(("hertz", "percent", "yen")):
        return _PLURALS.get(word, word)
    return f"{word[:-1]}ies" if word.endswith("ty") else f"{word}s"
