"""Read numbers from a model's configuration files, checked against the dataclass fields that they are for."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, get_args, get_origin

from barkfast.errors import CheckpointError

# Types of fields: a number with its inclusive range.
Size = Annotated[int, (1, 2**31 - 1)]
TokenId = Annotated[int, (0, 2**31 - 1)]
# The length of a list in a network: layers, codebooks.
Count = Annotated[int, (1, 1024)]
Rate = Annotated[float, (1e-3, 1e6)]
Share = Annotated[float, (0.0, 1.0)]


def read_section(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """The object under a key of a json file; an empty one if it is missing or null."""
    section = content.get(key)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise CheckpointError(f"{where}: {key} is {_show(section)}; expected an object with numbers in it")
    return section


def read_fields(kind: type, section: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, Any]:
    """The values of a json object for the fields of the dataclass `kind`, without those missing or null.

    Args:
        names: field -> key in the object.
        where: the file and the section in it, for messages.

    Raises:
        CheckpointError: a value does not fit its field; the message has file, key and value.
    """
    types = {field.name: field.type for field in fields(kind)}
    given = {field: section[key] for field, key in names.items() if section.get(key) is not None}
    return {field: _read(value, types[field], f"{where}: {names[field]}") for field, value in given.items()}


def _read(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise CheckpointError(f"{where} is {_show(value)}; expected a list of numbers")
        return tuple(_read(item, get_args(kind)[0], where) for item in value)
    if kind is bool:
        if not isinstance(value, bool):
            raise CheckpointError(f"{where} is {_show(value)}; expected true or false")
        return value
    number, (low, high) = get_args(kind)
    allowed = int if number is int else (int, float)
    # True is an int in Python.
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        what = "a whole number" if number is int else "a number"
        raise CheckpointError(f"{where} is {_show(value)}; expected {what} from {low:g} to {_limit(high)}")
    return value


def _limit(high: float) -> str:
    return "2^31 - 1" if high == 2**31 - 1 else f"{high:g}"


def _show(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
