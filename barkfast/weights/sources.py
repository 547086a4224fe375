"""Sources of a model's files, local or on the hub: the readers of a format need not know which."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from barkfast.errors import CheckpointError, MissingFileError
from barkfast.weights.files import Tensors, list_keys, read_json, read_tensors
from barkfast.weights.hub import FileNotInRepoError, fetch_required, hub_cache

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Source(Protocol):
    """A folder or repository that holds a model's files."""

    def find(self, filename: str) -> Path | None:
        """The local path of a file; None if this source has no such file."""

    def find_first(self, filenames: tuple[str, ...]) -> Path | None:
        """The first of several files that serve the same purpose."""


@dataclass(frozen=True)
class Folder:
    """A local folder."""

    path: Path

    def find(self, filename: str) -> Path | None:
        path = self.path / filename
        return path if path.is_file() else None

    def find_first(self, filenames: tuple[str, ...]) -> Path | None:
        return next(filter(None, map(self.find, filenames)), None)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Repo:
    """A repository on the Hugging Face hub, seen through its cache."""

    repo: str

    def find(self, filename: str) -> Path | None:
        try:
            return fetch_required(self.repo, filename)
        except FileNotInRepoError:
            return None

    def find_first(self, filenames: tuple[str, ...]) -> Path | None:
        """Prefer a file that is cached already: a better format is not worth downloading gigabytes."""
        for filename in filenames:
            if path := find_cached(self.repo, filename):
                return path
        return next(filter(None, map(self.find, filenames)), None)

    def __str__(self) -> str:
        return f"{self.repo} on the Hugging Face hub"


def find_cached(repo: str, filename: str) -> Path | None:
    """A file of a hub repository if it is in the cache; never uses the network."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, filename, cache_dir=hub_cache())
    # `fetch_required` also checks the size.
    return fetch_required(repo, filename) if isinstance(cached, str) else None


def read_weights(source: Source, prefix: str = "") -> Tensors:
    """Tensors whose key starts with `prefix`, which is removed, from one file or from the shards that hold them."""
    found: Tensors = {}
    for file in find_weights(source, prefix):
        found.update(read_tensors(file, lambda key: key.startswith(prefix)))
    return {key.removeprefix(prefix): value for key, value in found.items()}


def find_weights(source: Source, prefix: str = "") -> list[Path]:
    """The files that hold the tensors whose key starts with `prefix`."""
    path = source.find_first(WEIGHT_FILES)
    if path is None:
        raise MissingFileError(f"{source} has no weights; expected one of {', '.join(WEIGHT_FILES)}")
    return [path] if path.suffix != ".json" else _find_shards(source, path, prefix)


def has_keys(path: Path, prefix: str) -> bool:
    """Whether any tensor in a weights file has a key with this prefix."""
    return any(key.startswith(prefix) for key in list_keys(path))


def _find_shards(source: Source, index: Path, prefix: str) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map; expected the index of a sharded checkpoint")
    shards = []
    for name in sorted({str(file) for key, file in weight_map.items() if key.startswith(prefix)}):
        if Path(name).name != name:
            raise CheckpointError(f"{index} points to {name!r}; expected files in the same folder")
        path = source.find(name)
        if path is None:
            raise MissingFileError(f"{source} has {index.name}, but not the shard {name} that it names")
        shards.append(path)
    return shards
