"""Several requests side by side, in the caller's thread."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from barkfast.engine.request import Request
from barkfast.engine.turns import Speaker
from barkfast.errors import InputError

# Slots that a batch makes where there are fewer, if it has as many requests.
BATCH_SLOTS = 8


def speak_batch(bark: Speaker, requests: Any, keep_errors: bool, defaults: Mapping[str, Any]) -> list[Any]:
    """Speak requests, a Generation for each. Args and errors: as `Bark.generate_batch`."""
    if isinstance(requests, str) or not isinstance(requests, Sequence):
        raise InputError(f"requests is a {type(requests).__name__}; expected a list of texts or dicts")
    if not requests:
        return []
    with bark.scheduler(min(len(requests), BATCH_SLOTS)) as session:
        results = session.run(partial(_make_request, bark, item, defaults) for item in requests)
    for result in results:
        if isinstance(result, Exception) and not keep_errors:
            raise result
    return results


def _make_request(bark: Speaker, item: Any, defaults: Mapping[str, Any]) -> Request:
    """One item of a batch as a request."""
    if isinstance(item, Request):
        return item
    given = {"text": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping):
        raise InputError(f"a request is {item!r}; expected a text, or a dict of arguments of Bark.request")
    options: dict[str, Any] = {**defaults, **given}
    known = inspect.signature(bark.request).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"unknown arguments {', '.join(map(repr, unknown))}; expected some of {', '.join(known)}")
    return bark.request(**options)
