"""The files of voices in a folder: Hugging Face's layout, three .npy files each and an index; Suno's, one .npz each."""

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

from barkfast.errors import VoiceError

KEYS = ("semantic_prompt", "coarse_prompt", "fine_prompt")
INDEX = "speaker_embeddings_path.json"
EMBEDDINGS = "speaker_embeddings"

# Voice name -> array key -> path of its .npy file, relative to the model's folder.
Index = dict[str, dict[str, str]]


def read_index(path: Path) -> Index:
    """The entries of a speaker_embeddings_path.json. Raises: VoiceError."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {name: entry for name, entry in index.items() if isinstance(entry, dict)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise VoiceError(f"{path} is not an index of voices: {error}") from error


def default_entry(name: str) -> dict[str, str]:
    """The entry of a voice whose files have the usual names."""
    return {key: f"{EMBEDDINGS}/{name}_{key}.npy" for key in KEYS}


def find_index(folder: Path) -> Index:
    """The index of a model's folder; without an index, one of the files with the usual names. Raises: VoiceError."""
    if (folder / INDEX).is_file():
        return read_index(folder / INDEX)
    embeddings, tail = folder / EMBEDDINGS, f"_{KEYS[0]}.npy"
    files = sorted(embeddings.rglob(f"*{tail}"))
    names = (path.relative_to(embeddings).as_posix().removesuffix(tail) for path in files)
    return {name: default_entry(name) for name in names}


def check_inside(relative: str, index: str, name: str) -> None:
    """Raise VoiceError for a path in an index that would leave the model's folder."""
    # Checks only the path's text: files in the hub's cache are symbolic links to other folders. Checks it as a POSIX
    # and as a Windows path: the index comes from another machine.
    for path in (PurePosixPath(relative), PureWindowsPath(relative)):
        if path.is_absolute() or path.anchor or ".." in path.parts:
            raise VoiceError(
                f"{index}: the entry {name!r} leads outside the model's folder: {relative!r}; not followed"
            )


def list_archives(folder: Path) -> dict[str, Path]:
    """Voice name -> .npz file, at any depth; a file in a sub-folder is named "sub/name"."""
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.npz"))}


def find_archives(folder: Path) -> dict[str, Path]:
    """Voice name -> .npz file, in a model's folder."""
    # Only at the top level and where `barkfast convert` and Suno put voices: a model's folder may be deep.
    found = {path.stem: path for path in sorted(folder.glob("*.npz"))}
    for name in ("voices", EMBEDDINGS):
        found |= list_archives(folder / name)
    return found
