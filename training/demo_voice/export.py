"""Stage `export`: all trained parts as one Hugging Face folder, fp16, that both barkfast and transformers open.

Each part comes from its last run: the full-layout run, or the short one if the full one has not begun.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from barkfast.models.encodec import Decoder
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT
from barkfast.weights import huggingface
from barkfast.weights.codec import BARK_PREFIX, split_weight_norm
from barkfast.weights.codec import write_config as write_codec_config

from . import coarse, fine, t2s
from .decoder import FIRST, TUNE
from .encoder import Encoder
from .layout import COARSE, CODEC, FINE, LAYOUT, T2S, VOCABULARY
from .train import load_trained
from .units import TABLE
from .work import Work

FOLDER = "export"
START = "start"
WEIGHTS = "model.safetensors"


def last_run(work: Work, *names: str) -> str:
    """The first of `names` that has a checkpoint; START if none has one and the work starts from a model."""
    for name in names:
        if work.path(f"{name}.pt").is_file():
            return name
    if work.start:
        return START
    raise SystemExit(f"nothing is trained of {names[-1]} yet")


def rename(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A network's tensors under transformers' names; the fine heads are left out, because they are the tables."""
    return {
        prefix + huggingface.to_hf_key(key): value.half().contiguous()
        for key, value in model.state_dict().items()
        if not key.startswith("lm_heads.")
    }


def started_tensors(work: Work, prefix: str) -> dict[str, Tensor]:
    """The tensors of a part of the model that the work starts from, unchanged."""
    tensors = load_file(work.start / WEIGHTS)
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def codec_tensors(work: Work) -> dict[str, Tensor]:
    """Decoder, codebooks and, if it is trained, the encoder."""
    run = last_run(work, TUNE.name, FIRST.name)
    if run == START:
        return started_tensors(work, BARK_PREFIX)
    decoder = load_trained(work, run, Decoder(CODEC))
    tensors = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    books = torch.load(work.path("rvq.pt"))["books"]
    tensors |= {f"quantizer.layers.{k}.codebook.embed": book for k, book in enumerate(books)}
    if work.path("encoder.pt").is_file():
        encoder = load_trained(work, "encoder", Encoder(CODEC))
        tensors |= {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    split = split_weight_norm({key: value.half() for key, value in tensors.items()})
    return {BARK_PREFIX + key: value.half().contiguous() for key, value in split.items()}


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def run(work: Work) -> dict[str, object]:
    torch_device, work.device = work.device, "cpu"
    runs = {
        "text": last_run(work, t2s.FULL.name, t2s.SHORT.name),
        "coarse": last_run(work, coarse.FULL.name, coarse.SHORT.name),
        "fine": last_run(work, fine.FULL.name, fine.SHORT.name),
    }
    models = {"text": GPT(T2S), "coarse": GPT(COARSE), "fine": FineGPT(FINE)}
    config: dict[str, object] = {"model_type": "bark", "architectures": ["BarkModel"], "dtype": "float16"}
    config["torch_dtype"] = "float16"
    tensors: dict[str, Tensor] = {}
    for stage, model in models.items():
        section = huggingface.SECTIONS[stage]
        sizes = huggingface.write_config(model.config)
        config[section] = {"model_type": section.removesuffix("_config"), **sizes}
        prefix = huggingface.PREFIXES[stage]
        if runs[stage] == START:
            tensors |= started_tensors(work, prefix)
        elif stage == "text":
            tensors |= rename(t2s.finished(work, runs[stage]), prefix)
        else:
            tensors |= rename(load_trained(work, runs[stage], model), prefix)
    config["codec_config"] = write_codec_config(CODEC) | {"dtype": "float16"}
    tensors |= codec_tensors(work)
    folder = work.path(f"{FOLDER}/config.json").parent
    shutil.rmtree(folder)
    folder.mkdir()
    weights = folder / WEIGHTS
    save_file(tensors, weights, metadata={"format": "pt"})
    # Otherwise only the owner could read it, also in every package.
    weights.chmod(0o644)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", LAYOUT.to_generation_config())
    units = json.dumps({"units": [list(unit) for unit in TABLE]}, separators=(",", ":"))
    (folder / "units.json").write_text(units + "\n", encoding="utf-8")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "spell_out": "english"}
    write_json(folder / "tokenizer_config.json", tokenizer)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    if runs["coarse"] == START:
        # The voices hold codes of the model that the work starts from.
        shutil.copytree(work.start / "voices", folder / "voices")
    work.device = torch_device
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"bytes": size, "parameters": sum(tensor.numel() for tensor in tensors.values()), "runs": runs}
