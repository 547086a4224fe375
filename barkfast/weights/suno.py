"""Suno's checkpoints, as .pt or .safetensors: one file per network, `text.pt` small, `text_2.pt` large."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from barkfast.cache import hash_content
from barkfast.config import FineConfig, GPTConfig
from barkfast.errors import CheckpointError, InputError, MissingFileError
from barkfast.fields import read_fields
from barkfast.files import user_cache
from barkfast.weights.checkpoint import StageWeights
from barkfast.weights.files import Tensors, load_pickle, read_json, read_tensors
from barkfast.weights.huggingface import tie_heads
from barkfast.weights.sources import Source

SUFFIXES = (".pt", ".safetensors")

_SIZES = ("n_layer", "n_head", "n_embd", "block_size", "bias", "input_vocab_size", "output_vocab_size")
_REQUIRED = ("n_layer", "n_head", "n_embd", "input_vocab_size", "output_vocab_size")
_FINE_SIZES = ("n_codes_total", "n_codes_given")


def cache_folder() -> Path:
    """The folder into which `bark` downloads; as in `bark`, it begins with `~` if there is no home folder."""
    return (user_cache() or Path("~", ".cache")) / "suno" / "bark_v0"


def list_names(stage: str, small: bool) -> tuple[str, str]:
    """File names without suffix, the requested size first."""
    return (stage, f"{stage}_2") if small else (f"{stage}_2", stage)


def find_stage(source: Source, stage: str, *, small: bool, strict: bool = False, pt: bool = True) -> Path | None:
    """The file of one network in the requested size, else in the other one unless `strict`.

    `pt=False` leaves out the .pt files: on the hub they carry optimizer state, two thirds of their size.
    """
    for name in list_names(stage, small)[: 1 if strict else 2]:
        if path := source.find_first(tuple(name + suffix for suffix in (SUFFIXES if pt else SUFFIXES[1:]))):
            return path
    return None


def read_stage(path: Path, stage: str, source: Source) -> StageWeights:
    """One network from `text_2.pt` or from `text_2.safetensors` with `text_2.json` beside it."""
    if path.suffix == ".safetensors":
        config = source.find(path.with_suffix(".json").name)
        if config is None:
            raise MissingFileError(
                f"{path} needs {path.with_suffix('.json').name} beside it, which holds its model_args (n_layer, ...)"
            )
        content = read_json(config)
        tensors, model_args, where = read_tensors(path), content.get("model_args", content), str(config)
    else:
        content = load_pickle(path)
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(
                f"{path} is not one of Suno's checkpoints: expected 'model' and 'model_args' in it, "
                f"found {keys or 'nothing'}"
            )
        tensors, model_args, where = content["model"], content.get("model_args"), str(path)
    size = read_model_args(model_args, stage, where)
    tensors = clean_keys(tensors)
    return StageWeights(size, tie_heads(tensors) if stage == "fine" else tensors, lambda: hash_content(path))


def clean_keys(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Drop torch.compile's `_orig_mod.` prefix, and the causal masks that torch 1 builds saved as `.attn.bias`."""
    return {key.removeprefix("_orig_mod."): value for key, value in tensors.items() if not key.endswith(".attn.bias")}


def read_model_args(model_args: Any, stage: str, where: str) -> GPTConfig | FineConfig:
    """Sizes from a checkpoint's `model_args`, old naming (one `vocab_size`) included."""
    if not isinstance(model_args, Mapping):
        raise CheckpointError(f"{where} has no model_args; expected a dict with n_layer, n_head, n_embd, ...")
    args = dict(model_args)
    if "input_vocab_size" not in args and "vocab_size" in args:
        args["input_vocab_size"] = args["output_vocab_size"] = args.pop("vocab_size")
    args.pop("dropout", None)
    names = _SIZES + (_FINE_SIZES if stage == "fine" else ())
    if unknown := sorted(args.keys() - names):
        raise CheckpointError(f"{where} is not a {stage} network of Bark: unknown model_args {', '.join(unknown)}")
    if missing := [name for name in _REQUIRED if name not in args]:
        raise CheckpointError(f"{where}: model_args lack {', '.join(missing)}")
    kind = FineConfig if stage == "fine" else GPTConfig
    try:
        return kind(**read_fields(kind, args, {name: name for name in names}, f"{where}: model_args"))
    except InputError as error:
        raise CheckpointError(f"{where}: model_args {args}: {error}") from error
