"""The names of `bark.generation`: the stages one by one, the loaders, Suno's constants."""

import contextlib  # noqa: F401
import gc  # noqa: F401
import importlib
import logging
import os
import re  # noqa: F401
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: F401

from barkfast.bark import Bark
from barkfast.compat import cast_bool_env_var as _cast_bool_env_var  # noqa: F401
from barkfast.compat import clear_cuda_cache as _clear_cuda_cache  # noqa: F401
from barkfast.compat import detokenize as _detokenize  # noqa: F401
from barkfast.compat import flatten_codebooks as _flatten_codebooks  # noqa: F401
from barkfast.compat import inference_mode as _inference_mode  # noqa: F401
from barkfast.compat import softmax  # noqa: F401
from barkfast.compat import tokenize as _tokenize  # noqa: F401
from barkfast.config import Layout, Sampling, truthy
from barkfast.custom_networks import adopt, load_codec, load_network
from barkfast.errors import InputError
from barkfast.model import GPT, GPTConfig  # noqa: F401
from barkfast.model_fine import FineGPT, FineGPTConfig  # noqa: F401
from barkfast.options import Voice
from barkfast.runtime.sampling import Seed
from barkfast.runtime.select import resolve_device
from barkfast.text import Overflow
from barkfast.text import normalize_whitespace as _normalize_whitespace  # noqa: F401
from barkfast.voices import SUPPORTED_LANGS, VOICE_NAMES, bark_folder  # noqa: F401
from barkfast.weights.suno import cache_folder

logger = logging.getLogger(__name__)

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
"""Samples per second of the audio: 24000."""

ALLOWED_PROMPTS = {name.replace("/", os.path.sep) for name in VOICE_NAMES}
REMOTE_MODEL_PATHS = {
    stage + size: {"repo_id": "suno/bark", "file_name": f"{stage}{number}.pt"}
    for size, number in (("_small", ""), ("", "_2"))
    for stage in ("text", "coarse", "fine")
}


_MAKING = threading.Lock()


def default_bark() -> Bark:
    """The model behind the functions of `bark`: $BARKFAST_MODEL, else Suno's models as `bark` finds them."""
    # If two threads call this first, only one creates the model.
    with _MAKING:
        return _make_default()


@lru_cache(maxsize=1)
def _make_default() -> Bark:
    return Bark()


def forget_default_bark() -> None:
    """Drop the default model; the next call creates a new one."""
    _make_default.cache_clear()


# Computed on access, so that a name is in this module's globals only after a program has assigned it.
_MADE: dict[str, Callable[[], Any]] = {
    "CACHE_DIR": lambda: os.fspath(cache_folder()),
    "USE_SMALL_MODELS": lambda: truthy(os.environ.get("SUNO_USE_SMALL_MODELS")),
    "GLOBAL_ENABLE_MPS": lambda: truthy(os.environ.get("SUNO_ENABLE_MPS")),
    "OFFLOAD_CPU": lambda: truthy(os.environ.get("SUNO_OFFLOAD_CPU")),
    "tqdm": lambda: importlib.import_module("tqdm"),
    "default_cache_dir": lambda: os.path.join(os.path.expanduser("~"), ".cache"),
    "CUR_PATH": lambda: os.fspath(bark_folder() or os.path.dirname(os.path.abspath(__file__))),
    "models": lambda: default_bark().components.models,
    "models_devices": lambda: default_bark().components.devices,
}
# What `from bark.generation import *` imports, including the modules that bark.generation imports.
__all__ = [
    *_MADE,
    *["ALLOWED_PROMPTS", "CODEBOOK_SIZE", "COARSE_INFER_TOKEN", "COARSE_RATE_HZ", "COARSE_SEMANTIC_PAD_TOKEN"],
    *["CONTEXT_WINDOW_SIZE", "N_COARSE_CODEBOOKS", "N_FINE_CODEBOOKS", "REMOTE_MODEL_PATHS", "SAMPLE_RATE"],
    *["SEMANTIC_INFER_TOKEN", "SEMANTIC_PAD_TOKEN", "SEMANTIC_RATE_HZ", "SEMANTIC_VOCAB_SIZE", "SUPPORTED_LANGS"],
    *["TEXT_ENCODING_OFFSET", "TEXT_PAD_TOKEN", "GPT", "GPTConfig", "FineGPT", "FineGPTConfig"],
    *["clean_models", "codec_decode", "generate_coarse", "generate_fine", "generate_text_semantic"],
    *[
        "F",
        "load_codec_model",
        "load_model",
        "preload_models",
        "logger",
        "contextlib",
        "gc",
        "logging",
        "np",
        "os",
        "re",
        "softmax",
        "torch",
    ],
]

_CHOSEN_ELSEWHERE = "precision and speed are chosen by Bark(device=, dtype=, engine=) or BARKFAST_DTYPE"
_REFUSED = {
    "autocast": _CHOSEN_ELSEWHERE,
    "InferenceContext": _CHOSEN_ELSEWHERE,
    "_download": "load_model() fetches what is missing; `hf download suno/bark` fetches it all",
    "EncodecModel": "load_codec_model() gives a codec with encode(); the class itself is in the package encodec",
    "BertTokenizer": "load_model()['tokenizer'] is the tokenizer; the class itself is in the package transformers",
    "funcy": "import it from its own package",
    "hf_hub_download": "import it from its own package, huggingface_hub",
}


def __getattr__(name: str) -> Any:
    """The current values of the settings and objects in `_MADE`.

    Raises:
        ImportError: `bark` has the name and barkfast does not. `from barkfast.generation import name` would replace the
            message of an AttributeError.
    """
    if name in _MADE:
        return _MADE[name]()
    if name in _REFUSED:
        raise ImportError(f"barkfast.generation has no {name!r}, which bark.generation has: {_REFUSED[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def current_bark() -> Bark:
    """The default model, with the settings that the program assigned here and the networks that it put in `models`.

    Every function of `bark` gets its model here.
    """
    bark, assigned = default_bark(), globals()
    if "CACHE_DIR" in assigned:
        bark.components.cache = assigned["CACHE_DIR"]
    if "USE_SMALL_MODELS" in assigned:
        bark.components.small = bool(assigned["USE_SMALL_MODELS"])
    if "OFFLOAD_CPU" in assigned:
        bark.components.offload = bool(assigned["OFFLOAD_CPU"])
    if "GLOBAL_ENABLE_MPS" in assigned:
        bark.components.device = _grab_best_device()
    adopt(bark.components)
    return bark


def _setting(name: str) -> Any:
    return globals()[name] if name in globals() else _MADE[name]()


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
    return current_bark().generate_semantic(
        text,
        history_prompt,
        Sampling(temp, top_k, top_p),
        min_eos_p=min_eos_p,
        max_duration_s=max_gen_duration_s,
        allow_early_stop=allow_early_stop,
        overflow=overflow,
        seed=seed,
        silent=silent,
        strict=False,
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
    return current_bark().generate_coarse(
        x_semantic,
        history_prompt,
        Sampling(temp, top_k, top_p),
        max_history=max_coarse_history,
        sliding_window=sliding_window_len,
        max_duration_s=max_gen_duration_s,
        seed=seed,
        silent=silent,
        strict=False,
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
    return current_bark().generate_fine(x_coarse_gen, history_prompt, Sampling(temp), seed=seed, silent=silent)


def codec_decode(fine_tokens: np.ndarray) -> np.ndarray:
    """Turn (8, frames) codes into (samples,) float32 audio at 24 kHz."""
    return current_bark().decode(fine_tokens)


def preload_models(
    text_use_gpu: bool = True,
    text_use_small: bool = False,
    coarse_use_gpu: bool = True,
    coarse_use_small: bool = False,
    fine_use_gpu: bool = True,
    fine_use_small: bool = False,
    codec_use_gpu: bool = True,
    force_reload: bool = False,
) -> None:
    """Load all networks now, instead of when they are first needed.

    Args:
        text_use_gpu: False runs the semantic network on the CPU; True on the device that would be chosen anyway.
        text_use_small: use the small semantic network, where the model has both sizes.
        coarse_use_gpu: the same for the coarse network.
        coarse_use_small: the same for the coarse network.
        fine_use_gpu: the same for the fine network.
        fine_use_small: the same for the fine network.
        codec_use_gpu: the same for the codec.
        force_reload: load again what is loaded already.

    Raises:
        MissingFileError: the model is not on this machine, and cannot be fetched.
        CheckpointError: a file is damaged, of another format, or carries code.
        EngineError: the engine that was asked for cannot run here.
    """
    load_model(text_use_gpu, text_use_small, force_reload, "text")
    load_model(coarse_use_gpu, coarse_use_small, force_reload, "coarse")
    load_model(fine_use_gpu, fine_use_small, force_reload, "fine")
    load_codec_model(codec_use_gpu, force_reload)


def load_model(
    use_gpu: bool = True, use_small: bool = False, force_reload: bool = False, model_type: str = "text"
) -> Any:
    """Load the "text", "coarse" or "fine" network and return its entry in `models`."""
    _check_model_type(model_type)
    device = None if use_gpu else "cpu"
    return current_bark().components.load(model_type, device=device, small=use_small or None, force=force_reload)


def load_codec_model(use_gpu: bool = True, force_reload: bool = False) -> Any:
    """Load the codec and return it; it has `encode`, `sample_rate`, `channels` and `quantizer.n_q`."""
    return current_bark().components.load("codec", device=None if use_gpu else "cpu", force=force_reload)


def clean_models(model_key: str | None = None) -> None:
    """Drop one network, or all, and free their memory."""
    default_bark().components.drop(model_key)


def _check_model_type(model_type: str) -> None:
    if model_type not in ("text", "coarse", "fine"):
        raise InputError(f"model_type is {model_type!r}; expected 'text', 'coarse' or 'fine'")


def _get_ckpt_path(model_type: str, use_small: bool = False) -> str:
    """The path where `bark` stores a network's checkpoint; the file may not exist."""
    _check_model_type(model_type)
    key = f"{model_type}_small" if use_small or _setting("USE_SMALL_MODELS") else model_type
    return os.path.join(_setting("CACHE_DIR"), REMOTE_MODEL_PATHS[key]["file_name"])


def _load_model(ckpt_path: str, device: str, use_small: bool = False, model_type: str = "text") -> Any:
    """Load a network from Suno's checkpoint at `ckpt_path`, fetched if missing; it is not put into `models`."""
    _check_model_type(model_type)
    return load_network(current_bark().components, ckpt_path, str(device), model_type, use_small or None)


def _load_codec_model(device: str) -> Any:
    """Load a codec; it is not put into `models`."""
    return load_codec(current_bark().components, str(device))


def _load_history_prompt(history_prompt_input: Voice) -> Any:
    return current_bark().load_voice(history_prompt_input, ())


def _grab_best_device(use_gpu: bool = True) -> str:
    device = resolve_device("auto" if use_gpu else "cpu")
    if not use_gpu or device.startswith("cuda") or os.environ.get("BARKFAST_DEVICE"):
        return device
    return "mps" if torch.backends.mps.is_available() and _setting("GLOBAL_ENABLE_MPS") else "cpu"
