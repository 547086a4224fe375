"""The names that people import from `bark.generation`: the stages one by one, the loaders, Suno's constants."""

import os
from typing import Any

import numpy as np

from barkfast.api import default_bark, preload_models
from barkfast.bark import Overflow, Voice
from barkfast.config import Layout, Sampling, truthy
from barkfast.errors import InputError
from barkfast.runtime.sampling import Seed
from barkfast.runtime.select import resolve_device
from barkfast.text import normalize_whitespace as _normalize_whitespace
from barkfast.voices import SUPPORTED_LANGS, VOICE_NAMES
from barkfast.weights.suno import cache_folder

__all__ = [
    "ALLOWED_PROMPTS",
    "CACHE_DIR",
    "CODEBOOK_SIZE",
    "COARSE_INFER_TOKEN",
    "COARSE_RATE_HZ",
    "COARSE_SEMANTIC_PAD_TOKEN",
    "CONTEXT_WINDOW_SIZE",
    "GLOBAL_ENABLE_MPS",
    "N_COARSE_CODEBOOKS",
    "N_FINE_CODEBOOKS",
    "OFFLOAD_CPU",
    "SAMPLE_RATE",
    "SEMANTIC_INFER_TOKEN",
    "SEMANTIC_PAD_TOKEN",
    "SEMANTIC_RATE_HZ",
    "SEMANTIC_VOCAB_SIZE",
    "SUPPORTED_LANGS",
    "TEXT_ENCODING_OFFSET",
    "TEXT_PAD_TOKEN",
    "USE_SMALL_MODELS",
    "_normalize_whitespace",
    "clean_models",
    "codec_decode",
    "generate_coarse",
    "generate_fine",
    "generate_text_semantic",
    "load_codec_model",
    "load_model",
    "preload_models",
]

_SUNO = Layout()

CONTEXT_WINDOW_SIZE = 1024
SEMANTIC_RATE_HZ = _SUNO.semantic.rate_hz
SEMANTIC_VOCAB_SIZE = _SUNO.semantic.vocab_size
SEMANTIC_PAD_TOKEN = _SUNO.semantic.pad_token
SEMANTIC_INFER_TOKEN = _SUNO.semantic.infer_token
TEXT_ENCODING_OFFSET = _SUNO.semantic.text_offset
TEXT_PAD_TOKEN = _SUNO.semantic.text_pad_token
CODEBOOK_SIZE = _SUNO.codebook_size
N_COARSE_CODEBOOKS = _SUNO.coarse.n_codebooks
N_FINE_CODEBOOKS = _SUNO.fine.n_codebooks
COARSE_RATE_HZ = _SUNO.coarse.rate_hz
COARSE_SEMANTIC_PAD_TOKEN = _SUNO.coarse.semantic_pad_token
COARSE_INFER_TOKEN = _SUNO.coarse.infer_token
SAMPLE_RATE = _SUNO.sample_rate

ALLOWED_PROMPTS = {name.replace("/", os.path.sep) for name in VOICE_NAMES}
CACHE_DIR = os.fspath(cache_folder())
USE_SMALL_MODELS = truthy(os.environ.get("SUNO_USE_SMALL_MODELS"))
GLOBAL_ENABLE_MPS = truthy(os.environ.get("SUNO_ENABLE_MPS"))
OFFLOAD_CPU = truthy(os.environ.get("SUNO_OFFLOAD_CPU"))


def __getattr__(name: str) -> Any:
    """`models` and `models_devices`: the default model's loaded networks and their devices, when asked for."""
    if name == "models":
        return default_bark().parts.models
    if name == "models_devices":
        return default_bark().parts.devices
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def generate_text_semantic(
    text: str,
    history_prompt: Voice | None = None,
    temp: float | None = 0.7,
    top_k: int | None = None,
    top_p: float | None = None,
    silent: bool = False,
    min_eos_p: float | None = 0.2,
    max_gen_duration_s: float | None = None,
    allow_early_stop: bool = True,
    use_kv_caching: bool = False,
    *,
    seed: Seed = None,
    overflow: Overflow = "cut",
) -> np.ndarray:
    """Generate (n,) int64 semantic tokens from text; `use_kv_caching` is accepted, the cache is always used."""
    return default_bark().generate_semantic(
        text,
        history_prompt,
        Sampling(temp, top_k, top_p),
        min_eos_p=min_eos_p,
        max_duration_s=max_gen_duration_s,
        allow_early_stop=allow_early_stop,
        overflow=overflow,
        seed=seed,
        silent=silent,
    )


def generate_coarse(
    x_semantic: np.ndarray,
    history_prompt: Voice | None = None,
    temp: float | None = 0.7,
    top_k: int | None = None,
    top_p: float | None = None,
    silent: bool = False,
    max_coarse_history: int = 630,
    sliding_window_len: int = 60,
    use_kv_caching: bool = False,
    max_gen_duration_s: float | None = None,
    *,
    seed: Seed = None,
) -> np.ndarray:
    """Generate (2, frames) int32 coarse codes; `max_coarse_history` is 60 (faster) to 630 (more context)."""
    return default_bark().generate_coarse(
        x_semantic,
        history_prompt,
        Sampling(temp, top_k, top_p),
        max_history=max_coarse_history,
        sliding_window=sliding_window_len,
        max_duration_s=max_gen_duration_s,
        seed=seed,
        silent=silent,
    )


def generate_fine(
    x_coarse_gen: np.ndarray,
    history_prompt: Voice | None = None,
    temp: float | None = 0.5,
    silent: bool = True,
    *,
    seed: Seed = None,
) -> np.ndarray:
    """Generate (8, frames) int32 codes from the first codebooks; `temp=None` is greedy."""
    return default_bark().generate_fine(x_coarse_gen, history_prompt, Sampling(temp), seed=seed, silent=silent)


def codec_decode(fine_tokens: np.ndarray) -> np.ndarray:
    """Turn (8, frames) codes into (samples,) float32 audio at 24 kHz."""
    return default_bark().decode(fine_tokens)


def load_model(
    use_gpu: bool = True, use_small: bool = False, force_reload: bool = False, model_type: str = "text"
) -> Any:
    """Load the "text", "coarse" or "fine" network and return its entry in `models`."""
    if model_type not in ("text", "coarse", "fine"):
        raise InputError(f"model_type is {model_type!r}; expected 'text', 'coarse' or 'fine'")
    device = None if use_gpu else "cpu"
    return default_bark().parts.load(model_type, device=device, small=use_small or None, force=force_reload)


def load_codec_model(use_gpu: bool = True, force_reload: bool = False) -> Any:
    """Load the codec and return it."""
    return default_bark().parts.load("codec", device=None if use_gpu else "cpu", force=force_reload)


def clean_models(model_key: str | None = None) -> None:
    """Drop one network, or all, and free their memory."""
    default_bark().parts.drop(model_key)


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text)


def _detokenize(tokenizer: Any, enc_text: list[int]) -> str:
    return tokenizer.decode(enc_text)


def _load_history_prompt(history_prompt_input: Voice) -> Any:
    return default_bark().load_voice(history_prompt_input, ())


def _grab_best_device(use_gpu: bool = True) -> str:
    return resolve_device("auto" if use_gpu else "cpu")
