"""Bark models in Hugging Face's format: key names and sizes to and from Suno's."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch

from barkfast.cache import hash_content
from barkfast.config import FineConfig, GPTConfig, Layout
from barkfast.errors import CheckpointError, InputError, MissingFileError
from barkfast.fields import read_fields, read_section
from barkfast.weights.checkpoint import StageWeights
from barkfast.weights.files import Tensors, read_json
from barkfast.weights.sources import Source, find_weights, read_weights

logger = logging.getLogger(__name__)

PREFIXES = {"text": "semantic.", "coarse": "coarse_acoustics.", "fine": "fine_acoustics."}
SECTIONS = {"text": "semantic_config", "coarse": "coarse_acoustics_config", "fine": "fine_acoustics_config"}

_CONFIG_NAMES = {
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "hidden_size",
    "block_size": "block_size",
    "input_vocab_size": "input_vocab_size",
    "output_vocab_size": "output_vocab_size",
    "bias": "bias",
}
_FINE_NAMES = {"n_codes_total": "n_codes_total", "n_codes_given": "n_codes_given"}
# The defaults of transformers, which leaves them out of config.json.
_DEFAULTS = {"input_vocab_size": 10_048, "output_vocab_size": 10_048}

_TO_SUNO = {
    "input_embeds_layers": "transformer.wtes",
    "input_embeds_layer": "transformer.wte",
    "position_embeds_layer": "transformer.wpe",
    "layernorm_final": "transformer.ln_f",
}
_BLOCK_TO_SUNO = {
    "layernorm_1": "ln_1",
    "layernorm_2": "ln_2",
    "attn.att_proj": "attn.c_attn",
    "attn.out_proj": "attn.c_proj",
    "mlp.in_proj": "mlp.c_fc",
    "mlp.out_proj": "mlp.c_proj",
}
_TO_HF = {suno: hf for hf, suno in _TO_SUNO.items()}
_BLOCK_TO_HF = {suno: hf for hf, suno in _BLOCK_TO_SUNO.items()}


def read_layout(source: Source) -> Layout:
    """The model's token layout from its generation_config.json; Suno's if there is none."""
    try:
        path = source.find("generation_config.json")
    except MissingFileError as error:
        # A model whose weights alone were fetched, for a machine with no network, is most likely one of Suno's.
        logger.warning("taking Suno's token layout: %s", error)
        return Layout()
    return Layout() if path is None else Layout.from_generation_config(read_json(path), str(path))


def read_stage(source: Source, config: Mapping[str, Any], name: str) -> StageWeights:
    """One network of a Hugging Face Bark checkpoint, with Suno's keys; `config` is its config.json."""
    where = f"config.json of {source}"
    if config.get(SECTIONS[name]) is None:
        raise CheckpointError(f"{where} has no {SECTIONS[name]}; it is not that of a Bark model")
    size = read_config(name, read_section(config, SECTIONS[name], where), where)
    tensors = read_weights(source, PREFIXES[name])
    tensors = {to_suno_key(key): value for key, value in tensors.items() if not key.endswith(".attn.bias")}

    def content() -> str:
        # The same files hold the other networks too, under other prefixes, so `name` is needed.
        return " ".join([name, *map(hash_content, find_weights(source, PREFIXES[name]))])

    return StageWeights(size, tie_heads(tensors) if name == "fine" else tensors, content)


def read_config(name: str, section: Mapping[str, Any], where: str) -> GPTConfig | FineConfig:
    """Sizes of one network from its section of config.json, the file that `where` names."""
    names = _CONFIG_NAMES | (_FINE_NAMES if name == "fine" else {})
    kind = FineConfig if name == "fine" else GPTConfig
    where = f"{where}: {SECTIONS[name]}"
    try:
        return kind(**_DEFAULTS | read_fields(kind, section, names, where))
    except InputError as error:
        raise CheckpointError(f"{where}: {error}") from error


def write_config(config: GPTConfig | FineConfig) -> dict[str, Any]:
    """The inverse of `read_config`."""
    names = _CONFIG_NAMES | (_FINE_NAMES if isinstance(config, FineConfig) else {})
    return {hf: getattr(config, ours) for ours, hf in names.items()}


def tie_heads(tensors: Tensors) -> Tensors:
    """Make the fine network's head i and input table i+1 one tensor, whichever of them the file holds.

    If the file holds both, the head wins, as it does when the reference loads the file.
    """
    tied = dict(tensors)
    for i in range(len(tensors)):
        head, table = f"lm_heads.{i}.weight", f"transformer.wtes.{i + 1}.weight"
        weight: torch.Tensor | None = tensors.get(head, tensors.get(table))
        if weight is None:
            break
        tied[head] = tied[table] = weight
    return tied


def to_suno_key(key: str) -> str:
    """`layers.3.attn.att_proj.weight` -> `transformer.h.3.attn.c_attn.weight`; unknown keys stay as they are."""
    if match := re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", key):
        return f"transformer.h.{match[1]}.{_BLOCK_TO_SUNO.get(match[2], match[2])}.{match[3]}"
    head, dot, rest = key.partition(".")
    return _TO_SUNO.get(head, head) + dot + rest


def to_hf_key(key: str) -> str:
    """The inverse of `to_suno_key`."""
    if match := re.fullmatch(r"transformer\.h\.(\d+)\.(.+)\.(weight|bias)", key):
        return f"layers.{match[1]}.{_BLOCK_TO_HF[match[2]]}.{match[3]}"
    for suno, hf in _TO_HF.items():
        if key.startswith(f"{suno}."):
            return hf + key.removeprefix(suno)
    return key
