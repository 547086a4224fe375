"""Whether numbers that an engine is given can be used."""

import math
from typing import Any

from barkfast.errors import InputError


def check_seconds(name: str, value: Any) -> float:
    """Seconds from now. Errors: InputError unless it is a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name} is {value!r}; expected a positive number, of seconds from now, or None")
    return float(value)


def check_count(name: str, value: Any, least: int, what: str) -> int:
    """A number of `what`. Errors: InputError unless it is a whole one of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}, of {what}")
    return value
