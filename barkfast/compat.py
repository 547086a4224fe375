"""The small private functions of `bark.generation` that other projects import."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from barkfast.config import Layout, truthy
from barkfast.errors import InputError

_CODEBOOK_SIZE = Layout().codebook_size


def tokenize(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def detokenize(tokenizer: Any, enc_text: list[int]) -> str:
    return tokenizer.decode(enc_text)


def flatten_codebooks(arr: np.ndarray, offset_size: int | None = _CODEBOOK_SIZE) -> np.ndarray:
    """Flatten (codebooks, frames) codes frame by frame, with k * `offset_size` added to codebook k."""
    if arr.ndim != 2:
        raise InputError(f"codes have shape {arr.shape}; expected (codebooks, frames)")
    offsets = np.arange(len(arr), dtype=arr.dtype)[:, None] * arr.dtype.type(offset_size or 0)
    return (arr + offsets).ravel("F")


def cast_bool_env_var(s: str) -> bool:
    return truthy(s)


@contextlib.contextmanager
def inference_mode() -> Iterator[None]:
    """torch's inference mode; `bark`'s function also enables autocast."""
    with torch.inference_mode():
        yield


def clear_cuda_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.synchronize()


def softmax(x: np.ndarray, axis: int | None = None) -> np.ndarray:
    """scipy.special.softmax, in the dtype of `x`."""
    powers = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return powers / np.sum(powers, axis=axis, keepdims=True)
