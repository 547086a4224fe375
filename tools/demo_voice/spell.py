"""Numbers, dates, times and money as words, the way the demo voice's text list has them."""


def words(text: str) -> list[str]:
    """The words of a line."""
    return text.split()


UNITS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
MONTHS = words("january february march april may june july august september october november december")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def spell_number(n: int) -> str:
    """0 to 999,999,999 in words: 1205 -> `one thousand two hundred five`."""
    if n < 20:
        return UNITS[n]
    if n < 100:
        return TENS[n // 10] + (f" {UNITS[n % 10]}" if n % 10 else "")
    for size, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            head = f"{spell_number(n // size)} {name}"
            return f"{head} {spell_number(n % size)}" if n % size else head
    raise AssertionError(n)


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
    """A time of the twelve-hour clock, digits read out: 7, 5 -> `seven oh five`."""
    if minute == 0:
        return f"{UNITS[hour]} o'clock"
    return f"{UNITS[hour]} {'oh ' if minute < 10 else ''}{spell_number(minute)}"


def spell_digits(digits: str) -> str:
    """One by one, as in a telephone number."""
    return " ".join(UNITS[int(digit)] for digit in digits)
