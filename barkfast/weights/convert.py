"""Rewrite any model as a slim Hugging Face folder: safetensors, 8 codebooks, no optimizer state, no masks."""

import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from barkfast.config import DTYPE_ALIASES
from barkfast.errors import CheckpointError, InputError
from barkfast.files import expand
from barkfast.weights import huggingface
from barkfast.weights.attachments import copy_notices, copy_tokenizer, copy_voices
from barkfast.weights.checkpoint import STAGES, Checkpoint, CodecWeights, StageWeights
from barkfast.weights.codec import BARK_PREFIX, split_weight_norm
from barkfast.weights.codec import write_config as write_codec_config
from barkfast.weights.files import Tensors
from barkfast.weights.resolve import open_model

logger = logging.getLogger(__name__)

# Dtypes of files; integers with scales have no standard format.
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

# A file in every converted folder; `force` only replaces a folder that has it.
MARKER = "barkfast.json"


def convert(
    src: str | os.PathLike | None,
    dst: str | os.PathLike,
    dtype: str = "bfloat16",
    codec: str | os.PathLike | None = None,
    voices: str | os.PathLike | bool = True,
    *,
    small: bool = False,
    force: bool = False,
    tokenizer: bool = True,
) -> Path:
    """Write the model `src` as the folder `dst`, which barkfast and transformers' BarkModel both open.

    The GPTs are stored in `dtype`; the codec stays fp32: it always runs in fp32, rounding it is audible, and it is 1 %
    of the size. EnCodec's encoder, which new voices need, is kept if there is one. Tokenizer and voices are copied if
    found; a missing tokenizer logs a warning. The complete folder appears at the end, or none.

    Args:
        src, codec, small: as in `open_model`.
        dst: a folder that does not exist yet or is empty; its parent must exist.
        dtype: bfloat16 (bf16), float16 (fp16) or float32 (fp32).
        voices: True for those of the model, False for none, or a folder of .npz files or in Hugging Face's layout.
        force: replace `dst` if it is an earlier conversion; nothing else is ever replaced.
        tokenizer: whether to search for the tokenizer's files.

    Returns:
        The absolute path of `dst`.

    Raises:
        InputError: before any work. Also the errors of `open_model`.
    """
    stored = DTYPES.get(DTYPE_ALIASES.get(dtype, dtype))
    if stored is None:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    place = None if isinstance(voices, bool) else expand(voices)
    if place is not None and not place.is_dir():
        raise InputError(f"voices is {os.fspath(place)!r}, which is not a folder")
    target = Path(os.path.realpath(expand(dst)))
    _check_target(target, force)
    with _building(target) as folder:
        checkpoint = open_model(src, small=small or None, codec=codec)
        _write_model(checkpoint, folder, stored)
        copy_notices(checkpoint, folder)
        if tokenizer and not copy_tokenizer(checkpoint, folder):
            logger.warning("no tokenizer found for %s: to read text, set BARKFAST_TOKENIZER", checkpoint.name)
        if voices is not False:
            copy_voices(checkpoint, folder, place)
    return target


def _write_model(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    tensors: Tensors = {}
    name_of_dtype = str(dtype).removeprefix("torch.")
    config: dict[str, Any] = {"model_type": "bark", "architectures": ["BarkModel"], "dtype": name_of_dtype}
    # transformers before 4.56 reads the older name.
    config["torch_dtype"] = name_of_dtype
    for name in STAGES:
        weights = checkpoint.stage(name)
        section = huggingface.SECTIONS[name]
        config[section] = {"model_type": section.removesuffix("_config"), **huggingface.write_config(weights.config)}
        tensors |= _rename(weights, huggingface.PREFIXES[name], dtype)
    decoder = checkpoint.codec()
    config["codec_config"] = write_codec_config(decoder.config) | {"dtype": "float32"}
    tensors |= _rename_codec(decoder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", checkpoint.layout.to_generation_config())
    _write_json(folder / MARKER, {"converted_from": checkpoint.name, "dtype": name_of_dtype})


def _rename(weights: StageWeights, prefix: str, dtype: torch.dtype) -> Tensors:
    # A safetensors file cannot hold one tensor under two names, and transformers ties the fine heads to the tables.
    return {
        prefix + huggingface.to_hf_key(key): value.to(dtype).contiguous()
        for key, value in weights.tensors.items()
        if not key.startswith("lm_heads.")
    }


def _rename_codec(weights: CodecWeights) -> Tensors:
    try:
        encoder = weights.read_encoder()
    except CheckpointError as error:
        logger.warning("the codec's encoder is left out: %s", error)
        encoder = {}
    tensors = split_weight_norm(weights.tensors | encoder)
    return {BARK_PREFIX + key: value.contiguous() for key, value in tensors.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _check_target(target: Path, force: bool) -> None:
    if not target.parent.is_dir():
        raise InputError(f"cannot write {target}: {target.parent} is not an existing folder; make it first")
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"cannot write {target}: a file of that name exists; choose another name")
    if not any(target.iterdir()):
        return
    if not (target / MARKER).is_file():
        raise InputError(f"{target} is not empty, and is not an earlier conversion; choose a new folder")
    if not force:
        raise InputError(f"{target} holds an earlier conversion; use force (--force) to replace it, or a new folder")


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that replaces it when the block ends without an exception."""
    mark = secrets.token_hex(4)
    temporary, old = (target.with_name(f".{target.name}.{mark}.{end}") for end in ("part", "old"))
    # Created before the work, so that a location without write access fails early.
    try:
        temporary.mkdir()
    except OSError as error:
        raise InputError(f"cannot write into {target.parent}: {error.strerror or error}; choose another") from error
    try:
        yield temporary
        if target.exists():
            target.rename(old)
        try:
            temporary.rename(target)
        except BaseException:
            # Also for Ctrl-C: the old folder must not stay under its temporary name.
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
