"""Check arguments of callers; the functions that return something return plain Python numbers."""

import math
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from barkfast.errors import InputError

# The seeds that torch's generators take, and so every engine.
SEEDS = (-(2**63), 2**64 - 1)


def check_number(
    name: str, value: Any, expected: str, *, least: float = -math.inf, most: float = math.inf, open_: bool = False
) -> float:
    """Return a finite number of Python or numpy as a float; raise InputError for anything else.

    Args:
        expected: the description of valid numbers in the message, e.g. "a positive number of seconds, or None".
        least, most: inclusive bounds; `open_` excludes `least`.
    """
    number = math.nan
    if _is_number(value):
        with suppress(OverflowError, ValueError):
            number = float(value)
    if not math.isfinite(number) or not least <= number <= most or (open_ and number == least):
        raise _invalid(name, value, expected)
    return number


def check_whole(name: str, value: Any, expected: str, *, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number of Python or numpy as an int; 5.0 is valid. Args and Raises: as `check_number`."""
    whole: int | None = None
    if _is_number(value):
        with suppress(OverflowError, ValueError):
            whole = int(value) if value == int(value) else None
    if whole is None or (least is not None and whole < least) or (most is not None and whole > most):
        raise _invalid(name, value, expected)
    return whole


def check_kind(name: str, value: Any) -> None:
    """Raise InputError unless a value is None or any number."""
    if value is not None and not _is_number(value):
        raise _invalid(name, value, "a number, or None")


def check_seed(value: Any) -> int | None:
    """Return a seed. Raises: InputError unless it is None, or a whole number that torch's generators take."""
    expected = "a whole number from -2**63 to 2**64 - 1, or None"
    return None if value is None else check_whole("seed", value, expected, least=SEEDS[0], most=SEEDS[1])


def check_flag(name: str, value: Any) -> bool:
    """Return a truth value of Python or numpy. Raises: InputError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise _invalid(name, value, "True or False")
    return bool(value)


def check_seconds(name: str, value: Any) -> float:
    """Return seconds from now. Raises: InputError unless the value is a positive number."""
    return check_number(name, value, "a positive number, of seconds from now, or None", least=0, open_=True)


def check_count(name: str, value: Any, least: int, what: str) -> int:
    """Return a number of `what`. Raises: InputError unless it is a whole number of at least `least`."""
    return check_whole(name, value, f"a whole number of at least {least}, of {what}", least=least)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise InputError unless a value is one of some words."""
    # Comparing an array gives an array.
    if not isinstance(value, str) or value not in choices:
        raise _invalid(name, value, f"one of {', '.join(map(repr, choices))}")


def check_tokens(what: str, tokens: Any, ndim: int, end: int) -> None:
    """Raise InputError unless `tokens` is a non-empty integer array of `ndim` dimensions with ids in [0, end)."""
    if not isinstance(tokens, np.ndarray) or tokens.ndim != ndim or tokens.dtype.kind not in "iu":
        kind = f"{tokens.dtype} array of shape {tokens.shape}" if isinstance(tokens, np.ndarray) else type(tokens)
        raise InputError(f"{what} are a {kind}; expected an integer numpy array with {ndim} dimension(s)")
    if tokens.size == 0:
        raise InputError(f"{what} are empty: the stage before produced nothing; try another seed or a longer text")
    if tokens.min() < 0 or tokens.max() >= end:
        raise InputError(f"{what} hold values from {tokens.min()} to {tokens.max()}; expected 0 to {end - 1}")


def show(value: Any) -> str:
    """Format any value for a message: at most 80 characters of it, and the type unless it is a number or str."""
    try:
        shown = repr(value)[:80]
    except Exception:
        # The repr of a user's object may raise anything, that of an integer ValueError for too many digits.
        shown = "no value that can be written"
    return shown if isinstance(value, int | float | str) else f"{shown} ({type(value).__name__})"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def _invalid(name: str, value: Any, expected: str) -> InputError:
    return InputError(f"{name} is {show(value)}; expected {expected}")
