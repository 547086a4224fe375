"""Voice files: .npz with all three arrays, .npy with one."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from barkfast.errors import VoiceError
from barkfast.files import check_writable, replacing
from barkfast.voices.names import VOICE_NAMES
from barkfast.voices.voice import LoadedVoice
from barkfast.weights import numpy_files
from barkfast.weights.voice_files import KEYS

# What numpy and zipfile raise for files that are damaged, of another format, or contain a pickle.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_npy(path: Path, key: str) -> np.ndarray:
    try:
        return numpy_files.read_npy(path)
    except _UNREADABLE as error:
        raise VoiceError(f"voice file {path}: {key} cannot be read: {error}; expected an integer .npy array") from error


def read_npz(path: Path) -> LoadedVoice:
    """Read those of the three arrays that an .npz file has; ignore everything else in it."""
    if not path.exists():
        name = path.stem if path.parent.name != "v2" else f"v2/{path.stem}"
        hint = f"; the voice of that name is {name!r}, without .npz" if name in VOICE_NAMES else ""
        raise VoiceError(f"voice file {path} does not exist{hint}")
    try:
        names = numpy_files.list_npz(path)
    except _UNREADABLE as error:
        raise VoiceError(
            f"voice file {path} is not an .npz archive ({error}); a single array or a damaged file? Expected "
            f"{', '.join(KEYS)} in one .npz"
        ) from error
    found = {}
    for key in KEYS:
        if key not in names:
            continue
        try:
            found[key] = numpy_files.read_npz(path, key)
        except _UNREADABLE as error:
            raise VoiceError(f"voice file {path}: {key} cannot be read: {error}; save it again") from error
    if not found:
        raise VoiceError(f"voice file {path} holds {', '.join(names) or 'nothing'}; expected {', '.join(KEYS)}")
    return LoadedVoice(found, f"voice file {path}")


def check_voice_output(path: str | os.PathLike[str]) -> None:
    """Raise InputError unless `save_voice` can write to `path`; call it before the work."""
    if not str(path).endswith(".npz"):
        raise VoiceError(f"cannot save a voice as {str(path)!r}; its name must end in .npz")
    check_writable(path)


def save_voice(path: str | os.PathLike[str], voice: Mapping[str, Any]) -> None:
    """Write a voice to an .npz file atomically; keys other than the three are written too.

    Raises:
        VoiceError: a key is missing, a value is not a plain array, or the name does not end in .npz.
    """
    if not str(path).endswith(".npz"):
        raise VoiceError(f"cannot save a voice as {str(path)!r}; its name must end in .npz")
    if not isinstance(voice, Mapping):
        raise VoiceError(f"a voice is a dict with {', '.join(KEYS)}; got {type(voice).__name__}")
    missing = [key for key in KEYS if key not in voice]
    if missing:
        raise VoiceError(f"cannot save {path}: the voice has no {', '.join(missing)}")
    plain: dict[str, Any] = {key: np.asarray(value) for key, value in voice.items()}
    for key, array in plain.items():
        if array.dtype.hasobject:
            raise VoiceError(f"cannot save {path}: {key} is not a plain array, and would have to be pickled")
    with replacing(path) as file:
        np.savez(file, **plain)
