"""Open any model by name or path: the only module that knows all locations and formats."""

import os
from dataclasses import replace
from pathlib import Path

from barkfast.config import Layout, truthy
from barkfast.errors import CheckpointError, InputError, MissingFileError
from barkfast.files import expand
from barkfast.weights import demo, huggingface, suno
from barkfast.weights.checkpoint import STAGES, Checkpoint, CodecWeights, StageWeights
from barkfast.weights.codec import BARK_PREFIX, find_codec, open_codec, read_source
from barkfast.weights.files import read_json
from barkfast.weights.hub import hub_cache, is_repo_id
from barkfast.weights.random import NAMES, is_random, open_random
from barkfast.weights.shapes import list_some
from barkfast.weights.sources import WEIGHT_FILES, Folder, Repo, Source

LARGE, SMALL = "suno/bark", "suno/bark-small"

LAYOUTS = f"""a Bark model folder holds either
  config.json with one of {", ".join(WEIGHT_FILES)} (Hugging Face's format),
  text_2.pt, coarse_2.pt and fine_2.pt, or text.pt, coarse.pt and fine.pt (Suno's), or
  the same names as .safetensors, each with a .json of its model_args beside it"""


def open_model(
    model: str | os.PathLike | None = None,
    *,
    small: bool | None = None,
    codec: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
) -> Checkpoint:
    """Find a model; its networks are read on demand.

    Args:
        model: "demo", "random:nano|small|large|demo[:seed]", a folder, or a hub repository such as "suno/bark". None is
            $BARKFAST_MODEL, or else Suno's released model from the cache of `bark` itself, Hugging Face's cache or hub.
        small: use Suno's small networks, if `model` is None or has both sizes; None for $SUNO_USE_SMALL_MODELS.
        codec: EnCodec's weights, if not the model's own: file, folder or hub repository; None is $BARKFAST_CODEC.
        cache: the folder into which `bark` downloads; None for the one in the user's cache.

    Raises:
        InputError, MissingFileError, CheckpointError: the name is unknown, nothing was found, a file is unusable.
    """
    small = truthy(os.environ.get("SUNO_USE_SMALL_MODELS")) if small is None else small
    chosen = model if model is not None else os.environ.get("BARKFAST_MODEL") or None
    checkpoint = (
        _open_default(small, expand(cache or suno.cache_folder()))
        if chosen is None
        else _open_named(os.fsdecode(chosen), small)
    )
    # The demo voice has its own codes, so a setting for other models does not apply to it.
    named = None if checkpoint.name == demo.NAME else os.environ.get("BARKFAST_CODEC") or None
    place = codec if codec is not None else named
    if place is None:
        return checkpoint
    return replace(checkpoint, read_codec=lambda: open_codec(place, checkpoint.layout.fine.n_codebooks))


def _open_named(name: str, small: bool) -> Checkpoint:
    if name == demo.NAME:
        return _open_source(name, Folder(demo.FOLDER), demo.FOLDER, None, small)
    if is_random(name):
        return open_random(name)
    path = expand(name)
    if path.is_dir():
        return _open_source(name, Folder(path), path, None, small)
    if path.is_file():
        raise InputError(f"{name!r} is a file; a model is opened by its folder, {str(path.parent)!r}. {LAYOUTS}")
    if is_repo_id(name):
        try:
            return _open_source(name, Repo(name), None, name, small)
        except MissingFileError as error:
            raise MissingFileError(f"no model {name!r}: there is no such folder, and {error}. {_hint(name)}") from error
    if os.sep in name or name.startswith(("~", ".")):
        raise MissingFileError(f"no model {name!r}: there is no such folder; {LAYOUTS}")
    raise InputError(
        f"unknown model {name!r}; expected {demo.NAME}, random:{'|'.join(NAMES)}[:seed], {LARGE}, {SMALL}, another "
        f"repository of the Hugging Face hub (owner/name), or a folder"
    )


def _open_default(small: bool, cache: Path) -> Checkpoint:
    """Suno's released model: files that `bark` has downloaded already, the others from Hugging Face."""
    name, folder = (SMALL if small else LARGE), Folder(cache)
    found = {stage: suno.find_stage(folder, stage, small=small, strict=True) for stage in STAGES}

    def open_hub() -> Checkpoint:
        try:
            return _open_source(name, Repo(name), None, name, small)
        except MissingFileError as error:
            wanted = ", ".join(f"{suno.list_names(stage, small)[0]}.pt" for stage in STAGES)
            raise MissingFileError(
                f"no Bark model found: BARKFAST_MODEL is not set; looked for {wanted} in {cache}; for {name} in the "
                f"Hugging Face cache ({hub_cache()}); and on the hub: {error}. {_hint(name)}"
            ) from error

    if not any(found.values()):
        return open_hub()

    def read_stage(stage: str) -> StageWeights:
        path = found[stage]
        return open_hub().stage(stage) if path is None else suno.read_stage(path, stage, folder)

    layout = huggingface.read_layout(folder)
    present = ", ".join(stage for stage in STAGES if found[stage])
    origin = f"{cache} ({present})" + ("" if all(found.values()) else f", the rest from {name} on the hub")
    return Checkpoint(name, origin, layout, cache, LARGE, read_stage, lambda: _read_plain_codec(layout, cache))


def _open_source(name: str, source: Source, folder: Path | None, repo: str | None, small: bool) -> Checkpoint:
    """Recognise the format of a folder or a repository."""
    config = source.find("config.json")
    content = read_json(config) if config else {}
    if config and "semantic_config" in content and (repo or source.find_first(WEIGHT_FILES)):
        layout = huggingface.read_layout(source)
        return Checkpoint(
            name,
            str(config.parent),
            layout,
            config.parent,
            repo,
            lambda stage: huggingface.read_stage(source, content, stage),
            lambda: _read_own_codec(source, layout, folder),
        )
    found = {stage: suno.find_stage(source, stage, small=small, pt=repo is None) for stage in STAGES}
    if missing := [stage for stage in STAGES if found[stage] is None]:
        raise _not_recognised(source, folder, missing)
    paths = {stage: path for stage, path in found.items() if path}
    layout = huggingface.read_layout(source)
    place = folder or paths["text"].parent
    return Checkpoint(
        name,
        f"{place} ({', '.join(path.name for path in paths.values())})",
        layout,
        place,
        repo,
        lambda stage: suno.read_stage(paths[stage], stage, source),
        lambda: _read_plain_codec(layout, folder),
    )


def _read_own_codec(source: Source, layout: Layout, folder: Path | None) -> CodecWeights:
    """The codec inside a Hugging Face Bark checkpoint, or a separate one if the checkpoint has none."""
    path = source.find("config.json")
    if path and read_json(path).get("codec_config"):
        return read_source(source, layout.fine.n_codebooks, BARK_PREFIX)
    return _read_plain_codec(layout, folder)


def _read_plain_codec(layout: Layout, folder: Path | None) -> CodecWeights:
    return find_codec(layout.fine.n_codebooks, folder)


def _not_recognised(source: Source, folder: Path | None, missing: list[str]) -> CheckpointError:
    """The error for an unknown format: what the location lacks, and what it holds."""
    lacks = "no weights" if len(missing) == len(STAGES) else f"no weights for {', '.join(missing)}"
    content = ""
    if folder is not None:
        names = [path.name + "/" * path.is_dir() for path in folder.iterdir()]
        content = f" (it holds {list_some(names) or 'nothing'})"
    return CheckpointError(f"{lacks} recognised in {source}{content}; {LAYOUTS}")


def _hint(name: str) -> str:
    return (
        f"Get it on a machine with a network by `hf download {name} --exclude '*.pt'`, or set BARKFAST_MODEL to a "
        f"folder that holds a model, or try the built-in model {demo.NAME!r}"
    )
