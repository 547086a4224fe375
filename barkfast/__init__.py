"""barkfast: an optimized runtime of Suno's Bark; `import barkfast as bark` works wherever `import bark` did."""

import sys
from typing import TYPE_CHECKING, Any

# Import this before anything imports torch.
from barkfast import import_torch as _import_torch  # noqa: F401
from barkfast.alias import install_alias
from barkfast.api import generate_audio, save_as_prompt, semantic_to_waveform, text_to_semantic
from barkfast.bark import Bark, Generation
from barkfast.config import Sampling
from barkfast.errors import (
    BarkfastError,
    CheckpointError,
    EngineError,
    InputError,
    MissingFileError,
    VoiceError,
)
from barkfast.generation import SAMPLE_RATE, preload_models

if TYPE_CHECKING:
    from barkfast.engine.async_engine import Engine

__version__ = "0.1.0"
"""The version of barkfast."""

__all__ = [
    "SAMPLE_RATE",
    "Bark",
    "BarkfastError",
    "CheckpointError",
    "Engine",
    "EngineError",
    "Generation",
    "InputError",
    "MissingFileError",
    "Sampling",
    "VoiceError",
    "__version__",
    "generate_audio",
    "install_as_bark",
    "preload_models",
    "save_as_prompt",
    "semantic_to_waveform",
    "text_to_semantic",
]


def install_as_bark() -> None:
    """Make `import bark` return barkfast in this process, with shared modules; call it before bark is imported.

    Raises:
        InputError: `bark` itself has been imported already.
    """
    install_alias("bark", sys.modules[__name__], ("api", "generation", "model", "model_fine"))


def __getattr__(name: str) -> Any:
    """Import `Engine` on first access: programs that do not serve do not load the serving code."""
    if name == "Engine":
        from barkfast.engine.async_engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
