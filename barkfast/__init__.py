"""barkfast: Suno's Bark as an optimized runtime; `import barkfast as bark` works wherever `import bark` did."""

from barkfast.api import generate_audio, preload_models, save_as_prompt, semantic_to_waveform, text_to_semantic
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
from barkfast.generation import SAMPLE_RATE

__version__ = "0.1.0"

__all__ = [
    "SAMPLE_RATE",
    "Bark",
    "BarkfastError",
    "CheckpointError",
    "EngineError",
    "Generation",
    "InputError",
    "MissingFileError",
    "Sampling",
    "VoiceError",
    "__version__",
    "generate_audio",
    "preload_models",
    "save_as_prompt",
    "semantic_to_waveform",
    "text_to_semantic",
]
