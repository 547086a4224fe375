"""Voices (history prompts): find, load, check, save.

A voice is three integer arrays, the tokens of one stretch of speech at each stage: semantic_prompt (n,),
coarse_prompt (2, frames) and fine_prompt (8, frames).
"""

from barkfast.voices.files import KEYS, check_voice_output, save_voice
from barkfast.voices.load import find_voices, load_voice
from barkfast.voices.locations import bark_folder
from barkfast.voices.names import SUPPORTED_LANGS, VOICE_NAMES
from barkfast.voices.voice import PARTS, LoadedVoice, Voice, check_voice

__all__ = [
    "KEYS",
    "PARTS",
    "SUPPORTED_LANGS",
    "VOICE_NAMES",
    "LoadedVoice",
    "Voice",
    "bark_folder",
    "check_voice",
    "check_voice_output",
    "find_voices",
    "load_voice",
    "save_voice",
]
