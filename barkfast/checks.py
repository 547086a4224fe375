"""Whether numbers that a caller gives can be used; what is returned is a plain Python number."""

import math
from contextlib import suppress
from decimal import Decimal
from numbers import Real
from typing import Any

from barkfast.errors import InputError

# What torch's generators take, and so every engine.
SEEDS = (-(2**63), 2**64 - 1)


def check_number(
    name: str, value: Any, expected: str, *, least: float = -math.inf, most: float = math.inf, open_: bool = False
) -> float:
    """A finite number, of Python's or numpy's, as a float. Errors: InputError.

    Args:
        expected: what to say of numbers that are meant, e.g. "a positive number of seconds, or None".
        least, most: bounds; `open_`: `least` itself is refused.
    """
    number = math.nan
    if _is_number(value):
        with suppress(OverflowError, ValueError):
            number = float(value)
    if not math.isfinite(number) or not least <= number <= most or (open_ and number == least):
        raise _refusal(name, value, expected)
    return number


def check_whole(name: str, value: Any, expected: str, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number, of Python's or numpy's; 5.0 is one. Args and errors: as `check_number`."""
    whole: int | None = None
    if _is_number(value):
        with suppress(OverflowError, ValueError):
            whole = int(value) if value == int(value) else None
    if whole is None or (least is not None and whole < least) or (most is not None and whole > most):
        raise _refusal(name, value, expected)
    return whole


def check_kind(name: str, value: Any) -> None:
    """Raise InputError unless a value is None or a number, whichever."""
    if value is not None and not _is_number(value):
        raise _refusal(name, value, "a number, or None")


def check_seed(value: Any) -> int | None:
    """A seed. Errors: InputError unless it is None, or a whole number that torch's generators take."""
    expected = "a whole number from -2**63 to 2**64 - 1, or None"
    return None if value is None else check_whole("seed", value, expected, least=SEEDS[0], most=SEEDS[1])


def check_seconds(name: str, value: Any) -> float:
    """Seconds from now. Errors: InputError unless it is a positive number."""
    return check_number(name, value, "a positive number, of seconds from now, or None", least=0, open_=True)


def check_count(name: str, value: Any, least: int, what: str) -> int:
    """A number of `what`. Errors: InputError unless it is a whole one of at least `least`."""
    return check_whole(name, value, f"a whole number of at least {least}, of {what}", least=least)


def show(value: Any) -> str:
    """A value for a message, whatever it is: at most 80 characters."""
    try:
        shown = repr(value)[:80]
    except Exception:
        # Of an integer of too many digits, say.
        shown = "no value that can be written"
    return shown if isinstance(value, int | float | str) else f"{shown} ({type(value).__name__})"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def _refusal(name: str, value: Any, expected: str) -> InputError:
    return InputError(f"{name} is {show(value)}; expected {expected}")
