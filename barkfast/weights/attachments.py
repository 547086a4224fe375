"""Copy what belongs to a converted model besides its weights: tokenizer files, voices and licence files."""

import json
import logging
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from barkfast.errors import InputError, MissingFileError
from barkfast.files import expand
from barkfast.weights.checkpoint import Checkpoint
from barkfast.weights.hub import fetch_from_hub, fetch_many_from_hub
from barkfast.weights.numpy_files import read_npz
from barkfast.weights.random import STAND_IN, is_random
from barkfast.weights.tokenizer_files import find_tokenizer_file, named_tokenizer, tokenizer_repos
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
)

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
NOTICES = ("LICENSE", "NOTICE")


def copy_tokenizer(checkpoint: Checkpoint, target: Path) -> bool:
    """Copy tokenizer files: $BARKFAST_TOKENIZER's, the model's own, or mBERT's; return whether any were found.

    A model with random weights gets the stand-in if there are none.
    """
    for path in _find_tokenizer(checkpoint):
        shutil.copyfile(path, target / _canonical_name(path))
    found = find_tokenizer_file(target) is not None
    if not found and is_random(checkpoint.name):
        logger.warning("no tokenizer was found for %s: it gets a stand-in, which spells letters", checkpoint.name)
        (target / "vocab.txt").write_text("".join(f"{entry}\n" for entry in STAND_IN), encoding="utf-8")
    elif not found:
        return False
    settings = target / "tokenizer_config.json"
    if not settings.is_file():
        content = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
        settings.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return True


def copy_notices(checkpoint: Checkpoint, target: Path) -> None:
    """Copy the licence files in a model's folder."""
    for name in NOTICES:
        if checkpoint.folder is not None and (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, target / name)


def copy_voices(checkpoint: Checkpoint, target: Path, folder: Path | None = None) -> int:
    """Copy the voices of a folder, or of the model, in Hugging Face's layout; return their number.

    Each becomes `speaker_embeddings/{name}_{semantic,coarse,fine}_prompt.npy`, listed in
    speaker_embeddings_path.json.
    """
    source = folder or _voices_of(checkpoint)
    index: Index = {}
    if source is not None:
        for name, files in _find_triples(source).items():
            index[name] = default_entry(name)
            for key in KEYS:
                _make_room(target / index[name][key])
                shutil.copyfile(files[key], target / index[name][key])
        has_places = any((source / name).is_dir() for name in ("voices", EMBEDDINGS))
        archives = find_archives(source) if has_places else list_archives(source)
        for name, file in archives.items():
            if name not in index:
                index[name] = _unpack(file, name, target)
    if index:
        content = {"repo_or_path": ".", **dict(sorted(index.items()))}
        (target / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return len(index)


def _find_tokenizer(checkpoint: Checkpoint) -> list[Path]:
    named = named_tokenizer(checkpoint)
    for path in (expand(named) if named else None, checkpoint.folder):
        file = None if path is None else find_tokenizer_file(path)
        if file is not None:
            beside = [file.with_name(name) for name in TOKENIZER_FILES]
            return [file] if file == path else [other for other in beside if other.is_file()]
    for repo in tokenizer_repos(checkpoint):
        fetched = [fetch_from_hub(repo, name, optional=True) for name in TOKENIZER_FILES]
        if any(fetched[:2]):
            return [path for path in fetched if path]
    return []


def _canonical_name(path: Path) -> str:
    if path.name in TOKENIZER_FILES:
        return path.name
    return "tokenizer.json" if path.suffix == ".json" else "vocab.txt"


def _voices_of(checkpoint: Checkpoint) -> Path | None:
    if checkpoint.repo:
        try:
            return fetch_many_from_hub(checkpoint.repo, [INDEX, f"{EMBEDDINGS}/**"])
        except MissingFileError as error:
            logger.warning(
                "voices of %s were left out as far as they are not on this machine: %s", checkpoint.repo, error
            )
    return checkpoint.folder


def _find_triples(folder: Path) -> dict[str, dict[str, Path]]:
    """Voices in Hugging Face's layout that have all three files."""
    found = {}
    for name, entry in find_index(folder).items():
        relative = [str(entry.get(key, "")) for key in KEYS]
        # The name, too: the copies are named after it.
        for path in (name, *relative):
            check_inside(path, str(folder / INDEX), name)
        files = [folder / path for path in relative]
        if all(file.is_file() for file in files):
            found[name] = dict(zip(KEYS, files, strict=True))
    return found


def _unpack(file: Path, name: str, target: Path) -> dict[str, str]:
    names = default_entry(name)
    try:
        arrays = {key: read_npz(file, key) for key in KEYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} is not a voice: {error}; expected an .npz with {', '.join(KEYS)}") from error
    for key, array in arrays.items():
        _make_room(target / names[key])
        np.save(target / names[key], array)
    return names


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
