"""Copy what belongs to a converted model besides its weights: tokenizer files, voices and licence files."""

import json
import logging
import os
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from barkfast.errors import InputError, MissingFileError
from barkfast.files import expand
from barkfast.weights.arrays import read_npz
from barkfast.weights.checkpoint import Checkpoint
from barkfast.weights.demo import NAME as DEMO
from barkfast.weights.files import read_json
from barkfast.weights.hub import fetch_from_hub, fetch_many_from_hub
from barkfast.weights.random import STAND_IN, is_random

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
NOTICES = ("LICENSE", "NOTICE")
BERT_REPO = "bert-base-multilingual-cased"

INDEX = "speaker_embeddings_path.json"
EMBEDDINGS = "speaker_embeddings"
KEYS = ("semantic_prompt", "coarse_prompt", "fine_prompt")
_TAIL = f"_{KEYS[0]}.npy"


def copy_tokenizer(checkpoint: Checkpoint, target: Path) -> bool:
    """Copy tokenizer files: $BARKFAST_TOKENIZER's, the model's own, or mBERT's; return whether any were found.

    A model with random weights gets the stand-in if there are none.
    """
    for path in _find_tokenizer(checkpoint):
        shutil.copyfile(path, target / _canonical_name(path))
    found = any((target / name).is_file() for name in TOKENIZER_FILES[:2])
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
    place = folder or _voices_of(checkpoint)
    index: dict[str, dict[str, str]] = {}
    if place is not None:
        for name, files in _find_triples(place).items():
            index[name] = _target_names(name)
            for key in KEYS:
                _make_room(target / index[name][key])
                shutil.copyfile(files[key], target / index[name][key])
        for name, file in _find_archives(place).items():
            if name not in index:
                index[name] = _unpack(file, name, target)
    if index:
        content = {"repo_or_path": ".", **dict(sorted(index.items()))}
        (target / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return len(index)


def _find_tokenizer(checkpoint: Checkpoint) -> list[Path]:
    named = None if checkpoint.name == DEMO else os.environ.get("BARKFAST_TOKENIZER")
    place = expand(named) if named else None
    if place is not None and place.is_file():
        return [place]
    for folder in filter(None, (place, checkpoint.folder)):
        files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
        if any(path.name in TOKENIZER_FILES[:2] for path in files):
            return files
    for repo in filter(None, (checkpoint.repo, BERT_REPO)):
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
    if (folder / INDEX).is_file():
        listed = {name: entry for name, entry in read_json(folder / INDEX).items() if isinstance(entry, dict)}
    else:
        files = sorted((folder / EMBEDDINGS).rglob(f"*{_TAIL}"))
        names = (path.relative_to(folder / EMBEDDINGS).as_posix().removesuffix(_TAIL) for path in files)
        listed = {name: _target_names(name) for name in names}
    found = {}
    for name, entry in listed.items():
        paths = {key: folder / str(entry.get(key, "")) for key in KEYS}
        if any(_leads_outside(str(entry.get(key, ""))) for key in KEYS) or _leads_outside(name):
            raise InputError(f"{folder / INDEX}: the entry {name!r} leads outside the folder; correct or remove it")
        if all(path.is_file() for path in paths.values()):
            found[name] = paths
    return found


def _find_archives(folder: Path) -> dict[str, Path]:
    """Voices in Suno's layout, one .npz each; a file in a sub-folder is named "sub/name"."""
    roots = [root for root in (folder / "voices", folder / EMBEDDINGS) if root.is_dir()]
    found = {path.stem: path for path in sorted(folder.glob("*.npz"))}
    for root in roots or [folder]:
        found |= {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.npz"))}
    return found


def _unpack(file: Path, name: str, target: Path) -> dict[str, str]:
    names = _target_names(name)
    try:
        arrays = {key: read_npz(file, key) for key in KEYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} is not a voice: {error}; expected an .npz with {', '.join(KEYS)}") from error
    for key, array in arrays.items():
        _make_room(target / names[key])
        np.save(target / names[key], array)
    return names


def _target_names(name: str) -> dict[str, str]:
    return {key: f"{EMBEDDINGS}/{name}_{key}.npy" for key in KEYS}


def _leads_outside(relative: str) -> bool:
    return Path(relative).is_absolute() or ".." in Path(relative).parts


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
