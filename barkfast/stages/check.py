"""Check tokens that come from a caller or another stage."""

from typing import Any

import numpy as np

from barkfast.errors import InputError


def check_tokens(what: str, tokens: Any, ndim: int, end: int) -> None:
    """Raise InputError unless `tokens` is a non-empty integer array of `ndim` dimensions with ids in [0, end)."""
    if not isinstance(tokens, np.ndarray) or tokens.ndim != ndim or tokens.dtype.kind not in "iu":
        kind = f"{tokens.dtype} array of shape {tokens.shape}" if isinstance(tokens, np.ndarray) else type(tokens)
        raise InputError(f"{what} are a {kind}; expected an integer numpy array with {ndim} dimension(s)")
    if tokens.size == 0:
        raise InputError(f"{what} are empty: the stage before produced nothing; try another seed or a longer text")
    if tokens.min() < 0 or tokens.max() >= end:
        raise InputError(f"{what} hold values from {tokens.min()} to {tokens.max()}; expected 0 to {end - 1}")
