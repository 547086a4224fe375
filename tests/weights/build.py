"""Tiny Bark checkpoints in every format that barkfast opens, all holding the same tensors."""

import importlib.machinery
import json
import sys
import types
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.config import CodecConfig, FineConfig, GPTConfig
from barkfast.weights.shapes import gpt_shapes

Tensors = dict[str, torch.Tensor]

STAGES = ("text", "coarse", "fine")

# Suno's vocabularies, so that Suno's token layout fits, and everything else as small as possible.
CONFIGS: dict[str, GPTConfig | FineConfig] = {
    "text": GPTConfig(2, 2, 8, 129_600, 10_048, bias=False),
    "coarse": GPTConfig(2, 2, 8, 12_096, 12_096, bias=True),
    "fine": FineConfig(1, 2, 8, 1056, 1056, bias=False),
}
CODEC = CodecConfig(n_filters=2, dimension=16)

needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
needs_encodec = pytest.mark.skipif(
    find_spec("encodec") is None or find_spec("einops") is None, reason="encodec (with einops) is not installed"
)


def make_tensors(stage: str) -> Tensors:
    """One network's tensors by Suno's keys, every one of them filled with its own numbers."""
    generator = torch.Generator().manual_seed(STAGES.index(stage))
    shapes = gpt_shapes(CONFIGS[stage])
    tensors = {key: torch.empty(shape).normal_(generator=generator) for key, shape in shapes.items()}
    for key in tensors:
        if key.startswith("lm_heads."):
            tensors[key] = tensors[f"transformer.wtes.{int(key.split('.')[1]) + 1}.weight"]
    return tensors


def write_suno(
    folder: Path, suffix: str = "_2", *, zipped: bool = True, stages: tuple[str, ...] = STAGES, shift: float = 0.0
) -> Path:
    """Suno's `.pt` files as they were published: compiled, with masks, Adam's moments and a numpy scalar.

    `shift` is added to every tensor, to tell one file from another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        config, tensors = CONFIGS[stage], make_tensors(stage)
        state = {f"_orig_mod.{key}": value + shift if shift else value for key, value in tensors.items()}
        if stage != "fine":
            for i in range(config.n_layer):
                state[f"_orig_mod.transformer.h.{i}.attn.bias"] = torch.tril(torch.ones(1, 1, 8, 8))
        moments = {i: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)} for i in range(2)}
        content = {
            "model": state,
            "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95), "params": [0, 1]}]},
            "model_args": model_args(config, old=stage == "coarse"),
            "iter_num": 3,
            "best_val_loss": np.float32(2.5),
            "config": {"dataset": "x"},
        }
        torch.save(content, folder / f"{stage}{suffix}.pt", _use_new_zipfile_serialization=zipped)
    return folder


def model_args(config: GPTConfig | FineConfig, *, old: bool = False) -> dict[str, Any]:
    """A checkpoint's hyper-parameters; `old` is the old form with a single `vocab_size`."""
    names = ["n_layer", "n_head", "n_embd", "block_size", "bias", "input_vocab_size", "output_vocab_size"]
    names += ["n_codes_total", "n_codes_given"] if isinstance(config, FineConfig) else []
    args = {name: getattr(config, name) for name in names} | {"dropout": 0.0}
    if old:
        args["vocab_size"] = args.pop("input_vocab_size")
        del args["output_vocab_size"]
    return args


def write_stage_safetensors(folder: Path, *, nested: bool = False) -> Path:
    """`text_2.safetensors` with `text_2.json`, and so on; tied tensors are stored once."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        tensors = {key: value for key, value in make_tensors(stage).items() if not key.startswith("transformer.wtes.")}
        if stage == "fine":
            tensors["transformer.wtes.0.weight"] = make_tensors(stage)["transformer.wtes.0.weight"]
        save_file(tensors, folder / f"{stage}_2.safetensors")
        args = model_args(CONFIGS[stage])
        content = {"model_args": args} if nested else args
        (folder / f"{stage}_2.json").write_text(json.dumps(content))
    return folder


def make_hf_model() -> Any:
    """transformers' BarkModel with the same tensors, renamed here independently of barkfast."""
    from transformers import BarkConfig, BarkModel, EncodecConfig

    def section(config: GPTConfig | FineConfig) -> dict[str, Any]:
        return {
            "num_layers": config.n_layer,
            "num_heads": config.n_head,
            "hidden_size": config.n_embd,
            "input_vocab_size": config.input_vocab_size,
            "output_vocab_size": config.output_vocab_size,
            "bias": config.bias,
        }

    torch_state = torch.random.get_rng_state()
    model = BarkModel(
        BarkConfig(
            semantic_config=section(CONFIGS["text"]),
            coarse_acoustics_config=section(CONFIGS["coarse"]),
            fine_acoustics_config=section(CONFIGS["fine"]),
            codec_config=EncodecConfig(num_filters=CODEC.n_filters, hidden_size=CODEC.dimension).to_dict(),
        )
    ).eval()
    for stage, part in zip(STAGES, (model.semantic, model.coarse_acoustics, model.fine_acoustics), strict=True):
        renamed = {hf_key(key): value for key, value in make_tensors(stage).items()}
        missing, unexpected = part.load_state_dict(renamed, strict=False)
        assert not unexpected and all(key.endswith(".attn.bias") for key in missing)
    fill_codebooks(model.codec_model)
    torch.random.set_rng_state(torch_state)
    return model


def fill_codebooks(codec: Any) -> None:
    """Fill the codebooks with random numbers: a new EnCodec of transformers has empty ones."""
    for i, layer in enumerate(codec.quantizer.layers):
        layer.codebook.embed.normal_(generator=torch.Generator().manual_seed(i))


def hf_key(key: str) -> str:
    for suno, hf in (
        ("transformer.", ""),
        ("h.", "layers."),
        ("attn.c_attn", "attn.att_proj"),
        ("c_proj", "out_proj"),
        ("c_fc", "in_proj"),
        ("ln_1", "layernorm_1"),
        ("ln_2", "layernorm_2"),
        ("ln_f", "layernorm_final"),
        ("wpe", "position_embeds_layer"),
        ("wte", "input_embeds_layer"),
    ):
        key = key.replace(suno, hf)
    return key


def write_hf(folder: Path, *, max_shard_size: str = "5GB") -> Path:
    """A Hugging Face folder with safetensors, whole or in shards."""
    make_hf_model().save_pretrained(folder, max_shard_size=max_shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def write_hf_bin(folder: Path, *, n_shards: int = 1) -> Path:
    """A Hugging Face folder with pickles, as suno/bark has; masks and the codec's `weight_g` included."""
    folder.mkdir(parents=True)
    model = make_hf_model()
    (folder / "config.json").write_text(model.config.to_json_string())
    state = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in model.state_dict().items()
    }
    if n_shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    weight_map = {}
    for i in range(n_shards):
        name = f"pytorch_model-{i + 1:05d}-of-{n_shards:05d}.bin"
        keys = sorted(state)[i::n_shards]
        torch.save({key: state[key] for key in keys}, folder / name)
        weight_map |= dict.fromkeys(keys, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


FORMATS: dict[str, Callable[[Path], Path]] = {
    "suno": write_suno,
    "suno-small": lambda folder: write_suno(folder, ""),
    "suno-legacy": lambda folder: write_suno(folder, zipped=False),
    "stage-safetensors": write_stage_safetensors,
    "stage-safetensors-nested": lambda folder: write_stage_safetensors(folder, nested=True),
    "hf-safetensors": write_hf,
    "hf-sharded": lambda folder: write_hf(folder, max_shard_size="2MB"),
    "hf-bin": write_hf_bin,
    "hf-bin-sharded": lambda folder: write_hf_bin(folder, n_shards=3),
}


def fill_hub_cache(repo: str, source: Path, tmp_path: Path) -> Path:
    """Put a folder's files where huggingface_hub keeps them; returns the snapshot."""
    place = tmp_path / "hf" / f"models--{repo.replace('/', '--')}"
    commit = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots").mkdir()
    source.rename(place / "snapshots" / commit)
    return place / "snapshots" / commit


def make_encodec() -> Any:
    """The `encodec` package's 24 kHz model with random weights; torchaudio, which only its import needs, is faked."""
    had = "torchaudio" in sys.modules
    if not had:
        stand_in = types.ModuleType("torchaudio")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = stand_in
    try:
        from encodec import EncodecModel
    finally:
        if not had:
            del sys.modules["torchaudio"]
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    torch.random.set_rng_state(state)
    model.set_target_bandwidth(6.0)
    return model


def same_tensors(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    """Same keys, shapes and bits."""
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
