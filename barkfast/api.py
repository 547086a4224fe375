"""The functions of `bark`, with its signatures; the arguments that barkfast adds are keyword-only."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from barkfast.config import Sampling
from barkfast.errors import InputError
from barkfast.generation import (
    codec_decode,
    current_bark,
    default_bark,  # noqa: F401
    generate_coarse,
    generate_fine,
    generate_text_semantic,
)
from barkfast.options import Voice
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.text import Overflow
from barkfast.voices import save_voice

__all__ = [
    "codec_decode",
    "generate_audio",
    "generate_coarse",
    "generate_fine",
    "generate_text_semantic",
    "np",
    "save_as_prompt",
    "semantic_to_waveform",
    "text_to_semantic",
]


def text_to_semantic(
    text: str,
    history_prompt: Voice | None = None,
    temp: float | None = 0.7,
    silent: bool = False,
    *,
    seed: Seed = None,
    overflow: Overflow = "cut",
) -> np.ndarray:
    """Generate semantic tokens from text.

    Args:
        text: text to be turned into audio, up to 256 tokens (about 13 seconds of speech).
        history_prompt: a voice: name, .npz file or dict.
        temp: generation temperature (1.0 more diverse, 0.0 greedy).
        silent: disable the progress bar.
        seed: for repeatable results; None draws from torch's global generator.
        overflow: "cut" a text that is too long, with a warning, or raise an "error".

    Returns:
        (n,) int64 semantic tokens, 49.9 for a second.

    Raises:
        InputError: the text or another argument cannot be used, or the model ended at once.
        VoiceError: the voice is unknown or does not fit the model.
        MissingFileError: the model is not on this machine, and cannot be fetched.
    """
    return current_bark().generate_semantic(
        text, history_prompt, Sampling(temp), overflow=overflow, seed=seed, silent=silent
    )


def semantic_to_waveform(
    semantic_tokens: np.ndarray,
    history_prompt: Voice | None = None,
    temp: float | None = 0.7,
    silent: bool = False,
    output_full: bool = False,
    max_gen_duration_s: float | None = None,
    *,
    seed: Seed = None,
) -> Any:
    """Generate audio from semantic tokens.

    Args:
        semantic_tokens: (n,) integers from `text_to_semantic`.
        history_prompt: a voice: name, .npz file or dict.
        temp: generation temperature (1.0 more diverse, 0.0 greedy).
        silent: disable the progress bar.
        output_full: also return all tokens, as a dict that serves as a voice.
        max_gen_duration_s: at most this many seconds.
        seed: for repeatable results; None draws from torch's global generator.

    Returns:
        (samples,) float32 audio at 24 kHz, or (full_generation, audio) with `output_full`.

    Raises:
        InputError: the tokens are not integers of the model's range, or another argument cannot be used.
        VoiceError: the voice is unknown or does not fit the model.
        MissingFileError: the model is not on this machine, and cannot be fetched.
    """
    bark, random = current_bark(), Randomness.of(seed)
    coarse = bark.generate_coarse(
        semantic_tokens,
        history_prompt,
        Sampling(temp),
        max_duration_s=max_gen_duration_s,
        seed=random,
        silent=silent,
        strict=False,
    )
    fine = bark.generate_fine(coarse, history_prompt, Sampling(0.5), seed=random)
    audio = bark.decode(fine)
    if output_full:
        return {"semantic_prompt": semantic_tokens, "coarse_prompt": coarse, "fine_prompt": fine}, audio
    return audio


def generate_audio(
    text: str,
    history_prompt: Voice | None = None,
    text_temp: float | None = 0.7,
    waveform_temp: float | None = 0.7,
    silent: bool = False,
    output_full: bool = False,
    *,
    seed: Seed = None,
    overflow: Overflow = "cut",
) -> Any:
    """Generate audio from text.

    Args:
        text: text to be turned into audio, up to 256 tokens (about 13 seconds of speech).
        history_prompt: a voice: name, .npz file or dict.
        text_temp: temperature of the semantic stage (1.0 more diverse, 0.0 greedy).
        waveform_temp: temperature of the coarse stage.
        silent: disable the progress bars.
        output_full: also return all tokens, as a dict that serves as a voice.
        seed: for repeatable results; None draws from torch's global generator.
        overflow: "cut" a text that is too long, with a warning, or raise an "error".

    Returns:
        (samples,) float32 audio at 24 kHz, or (full_generation, audio) with `output_full`.

    Raises:
        InputError: the text or another argument cannot be used, or the model ended at once.
        VoiceError: the voice is unknown or does not fit the model.
        MissingFileError: the model is not on this machine, and cannot be fetched.
    """
    random = Randomness.of(seed)
    voice = current_bark().load_voice(history_prompt, ("semantic", "coarse", "fine"))
    semantic = text_to_semantic(text, voice, text_temp, silent, seed=random, overflow=overflow)
    return semantic_to_waveform(semantic, voice, waveform_temp, silent, output_full, seed=random)


def save_as_prompt(filepath: str | os.PathLike[str], full_generation: Mapping[str, np.ndarray]) -> None:
    """Save a full generation as a voice, an .npz file.

    Whether the arrays fit a model is checked where the voice is used.

    Args:
        filepath: where to write it; the name must end in .npz.
        full_generation: semantic_prompt (n,), coarse_prompt (2, frames) and fine_prompt (8, frames), integers; the
            first result of `generate_audio(..., output_full=True)`.

    Raises:
        InputError: the name has another ending.
        VoiceError: an array is missing, or would have to be pickled.
        OutputError: the file cannot be written.
    """
    if not os.fspath(filepath).endswith(".npz"):
        raise InputError(f"voice file is {os.fspath(filepath)!r}; expected a name ending in .npz")
    save_voice(filepath, full_generation)
