"""Locations of voices: folders, a model's own files, an installed `bark`, the hub."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from barkfast.config import Layout
from barkfast.errors import MissingFileError, VoiceError
from barkfast.files import expand
from barkfast.voices.files import read_npy, read_npz
from barkfast.voices.names import UNNAMED_IN_BARK, VOICE_NAMES
from barkfast.voices.voice import LoadedVoice
from barkfast.weights import fetch_from_hub
from barkfast.weights.voice_files import (
    EMBEDDINGS,
    INDEX,
    KEYS,
    Index,
    check_inside,
    default_entry,
    find_archives,
    find_index,
    list_archives,
    read_index,
)

if TYPE_CHECKING:
    from barkfast.weights import Checkpoint

SUNO_REPO = "suno/bark"


@dataclass(frozen=True)
class Location:
    """A location of voices: its description, the names of its voices, and a function that loads one by name."""

    description: str
    names: frozenset[str]
    load: Callable[[str], LoadedVoice]


def _npz_location(files: Mapping[str, Path], description: str) -> Location:
    return Location(description, frozenset(files), lambda name: read_npz(files[name]))


def _triple_location(index: Index, where: str, fetch: Callable[[str], Path]) -> Location:
    """Voices in the Hugging Face layout: three .npy files each, listed in an index.

    `fetch` turns a path from the index into a local file.
    """

    def load(name: str) -> LoadedVoice:
        entry = index[name]
        for key in KEYS:
            if not isinstance(entry.get(key), str):
                raise VoiceError(f"{where}, {INDEX}: the entry {name!r} has no path for {key}")
            check_inside(entry[key], f"{where}, {INDEX}", name)
        return LoadedVoice({key: read_npy(fetch(entry[key]), key) for key in KEYS}, f"voice {name!r} from {where}")

    return Location(where, frozenset(index), load)


def _model_locations(folder: Path, description: str) -> list[Location]:
    """The voices in a folder that has the layout of a model's folder."""
    locations = []
    if index := find_index(folder):
        locations.append(_triple_location(index, description, lambda relative: folder / relative))
    if files := find_archives(folder):
        locations.append(_npz_location(files, description))
    return locations


def _named_folder(folder: str | os.PathLike[str], said_by: str) -> list[Location]:
    """A folder the user named: .npz files, or the Hugging Face layout."""
    path = expand(folder)
    if not path.is_dir():
        raise VoiceError(f"{said_by} is {str(folder)!r}, which is not a folder; expected one with voices (.npz)")
    if (path / INDEX).is_file() or (path / EMBEDDINGS).is_dir():
        return _model_locations(path, f"{said_by} {path}")
    return [_npz_location(list_archives(path), f"{said_by} {path}")]


def bark_folder() -> Path | None:
    """The folder of an installed `bark` with its presets in assets/prompts, found without importing it."""
    # Not importlib.util.find_spec: barkfast itself may be in sys.modules under the name `bark`.
    spec = PathFinder.find_spec("bark")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (Path(location) / "assets" / "prompts").is_dir():
            return Path(location)
    return None


def _bark_location() -> Location | None:
    folder = bark_folder()
    if folder is None:
        return None
    prompts = folder / "assets" / "prompts"
    return _npz_location(list_archives(prompts), f"the installed bark package ({prompts})")


def local_locations(checkpoint: "Checkpoint | None", folder: str | os.PathLike[str] | None) -> list[Location]:
    """All locations on this machine, in search order."""
    locations: list[Location] = []
    if folder is not None:
        locations += _named_folder(folder, "the voices folder")
    if checkpoint is not None and checkpoint.folder is not None:
        locations += _model_locations(checkpoint.folder, f"the model's folder {checkpoint.folder}")
    if os.environ.get("BARKFAST_VOICES"):
        locations += _named_folder(os.environ["BARKFAST_VOICES"], "BARKFAST_VOICES")
    bark = _bark_location() if has_suno_tokens(checkpoint) else None
    return locations + ([bark] if bark else [])


def has_suno_tokens(checkpoint: "Checkpoint | None") -> bool:
    """Whether Suno's voices fit the model; True without a model."""
    ours = checkpoint.layout if checkpoint else Layout()
    return (ours.semantic.vocab_size, ours.codebook_size) == (Layout().semantic.vocab_size, Layout().codebook_size)


def hub_location(name: str, checkpoint: "Checkpoint | None") -> Location | None:
    """The hub repository that may hold a voice, or None if no repository is expected to."""
    suno_name = name in VOICE_NAMES | UNNAMED_IN_BARK
    repo = checkpoint.repo if checkpoint is not None else None
    if repo is None and suno_name and has_suno_tokens(checkpoint):
        repo = SUNO_REPO
    if repo is None:
        return None
    file = fetch_from_hub(repo, INDEX, optional=True)
    index = read_index(file) if file else {name: default_entry(name)} if suno_name else {}

    def fetch(relative: str) -> Path:
        found = fetch_from_hub(repo, relative)
        if found is None:
            raise MissingFileError(f"{repo} on the hub has no {relative}")
        return found

    return _triple_location(index, f"{repo} on the hub", fetch)
