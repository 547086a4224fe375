"""What a voice is, and whether it fits a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from barkfast.config import Layout
from barkfast.errors import VoiceError

Voice = Mapping[str, np.ndarray]

PARTS = ("semantic", "coarse", "fine")


class LoadedVoice(dict[str, np.ndarray]):
    """A voice with its origin, which error messages name."""

    def __init__(self, prompts: Mapping[str, np.ndarray], origin: str) -> None:
        super().__init__(prompts)
        self.origin = origin


def _check_array(array: Any, where: str, n_rows: int | None, n_values: int) -> None:
    """Raise VoiceError unless `array` is (n_rows, frames), or (n,) for None, of integers in [0, n_values)."""
    shape = "(n,)" if n_rows is None else f"({n_rows}, frames)"
    if not isinstance(array, np.ndarray):
        raise VoiceError(f"{where} is a {type(array).__name__}; expected a numpy array of shape {shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise VoiceError(f"{where} is {array.dtype}; expected integers, which tokens are")
    if array.ndim != (1 if n_rows is None else 2) or (n_rows is not None and array.shape[0] != n_rows):
        raise VoiceError(f"{where} has shape {array.shape}; expected {shape}")
    if array.size == 0:
        raise VoiceError(f"{where} is empty (shape {array.shape}); expected {shape} with something in it")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n_values:
        raise VoiceError(
            f"{where} holds values from {low} to {high}; expected 0 to {n_values - 1}: was it made with another model?"
        )


def check_voice(voice: Mapping[str, Any], layout: Layout, parts: Iterable[str] = PARTS) -> None:
    """Raise VoiceError unless the voice has the arrays that the stages `parts` need, and they fit the model's layout.

    Exactly as strict as the reference. The coarse stage needs the semantic array too.
    """
    origin = getattr(voice, "origin", "the voice")
    parts = set(parts)
    if "coarse" in parts:
        parts.add("semantic")
    expected = {
        "semantic": (None, layout.semantic.vocab_size),
        "coarse": (layout.coarse.n_codebooks, layout.codebook_size),
        "fine": (layout.fine.n_codebooks, layout.codebook_size),
    }
    for part, (n_rows, n_values) in expected.items():
        if part not in parts:
            continue
        key = f"{part}_prompt"
        if key not in voice:
            held = ", ".join(map(str, voice)) or "nothing"
            raise VoiceError(f"{origin} has no {key}; it holds {held}")
        _check_array(voice[key], f"{origin}: {key}", n_rows, n_values)
    if "coarse" in parts:
        frames, tokens = voice["coarse_prompt"].shape[1], len(voice["semantic_prompt"])
        wanted = layout.coarse_per_semantic / layout.coarse.n_codebooks
        if round(frames / tokens, 1) != round(wanted, 1):
            raise VoiceError(
                f"{origin}: coarse_prompt has {frames} frames for {tokens} tokens in semantic_prompt, "
                f"{frames / tokens:.3f} each; expected {round(wanted, 1)} (about {round(tokens * wanted)} frames): "
                "both must describe the same stretch of speech"
            )
