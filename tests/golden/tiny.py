"""A tiny random Bark in Suno's checkpoint format, drawn from bare PCG64 bits: the same on every machine and version.

Its weights are spread so that sampling is meaningful: logits are peaked enough for top-p and top-k to cut, context
and voice change what is drawn, and the end-of-speech token comes up after some tens of semantic tokens.
"""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

# file name, input vocabulary, output vocabulary: Suno's
STAGES = {
    "text": ("text_2.pt", 129_600, 10_048),
    "coarse": ("coarse_2.pt", 12_096, 12_096),
    "fine": ("fine_2.pt", 1056, 1056),
}
END_OF_SPEECH = 10_000
END_OF_SPEECH_SCALE = 3.2
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
WORDS = ["hello", "world", "the", "is", "speech", "##ing", "##ed", "laughs", "MAN", "WOMAN", "♪", "—", "é", "##é", "好"]


@dataclass(frozen=True)
class Files:
    """Where a model lies: `cache` plays $XDG_CACHE_HOME, `tokenizer` holds vocab.txt."""

    cache: Path
    tokenizer: Path
    codec: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the `.pt` files."""
        return self.cache / "suno" / "bark_v0"


def uniform(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """fp32 numbers in [-0.5, 0.5), drawn for `key` alone, so that the order of drawing does not matter."""
    bits = np.random.PCG64(zlib.crc32(key.encode())).random_raw(int(np.prod(shape)))
    unit = (bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)
    return torch.from_numpy(unit.reshape(shape))


def spread(name: str, shape: tuple[int, ...], stage: str) -> tuple[float, float]:
    """Mean and standard deviation of one tensor, by its name in the checkpoint."""
    if ".ln_" in name:
        return (1.0, 0.2) if name.endswith("weight") else (0.0, 0.2)
    if name.endswith("bias"):
        return 0.0, 0.1
    if "wtes" in name or "lm_head" in name:  # the fine network shares its heads with its embeddings
        return 0.0, (3.0 if stage == "fine" else 2.5) * shape[-1] ** -0.5
    if "wte" in name or "wpe" in name:
        return 0.0, 1.0 if stage != "fine" else 0.3
    return 0.0, 1.5 * shape[-1] ** -0.5


def draw(name: str, shape: tuple[int, ...], stage: str, seed: int) -> torch.Tensor:
    """One tensor of a network, by its name in the checkpoint."""
    mean, deviation = spread(name, shape, stage)
    values = uniform(f"{seed}/{stage}/{name}", shape) * np.float32(deviation * 12**0.5) + np.float32(mean)
    if stage == "text" and name == "lm_head.weight":
        # stretched, so that the end of speech wins a step now and then
        values[END_OF_SPEECH] *= END_OF_SPEECH_SCALE
    return values


def draw_codec(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor of encodec's 24 kHz model, such that random codes sound about as loud as speech."""
    values = uniform(f"codec/{name}", shape)
    if name.endswith("inited"):
        return torch.ones(shape)
    if name.endswith(("embed", "embed_avg", "cluster_size")):
        return values * 1.7
    if name.endswith("weight_g"):
        return 1.0 + 0.2 * values
    if len(shape) == 1:
        return 0.17 * values
    return values * (2 * int(np.prod(shape[1:])) ** -0.5)


def tensor_shapes(stage: str, n_layer: int, n_embd: int, bias: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one stage's parameters in Suno's checkpoints; tied heads of the fine network left out."""
    _, n_input, n_output = STAGES[stage]
    norm_bias = bias or stage == "fine"
    shapes: dict[str, tuple[int, ...]] = {"transformer.wpe.weight": (1024, n_embd)}
    if stage == "fine":
        shapes |= {f"transformer.wtes.{i}.weight": (n_input, n_embd) for i in range(8)}
    else:
        shapes |= {"transformer.wte.weight": (n_input, n_embd), "lm_head.weight": (n_output, n_embd)}
    matrices = {
        "attn.c_attn": (3 * n_embd, n_embd),
        "attn.c_proj": (n_embd, n_embd),
        "mlp.c_fc": (4 * n_embd, n_embd),
        "mlp.c_proj": (n_embd, 4 * n_embd),
    }
    norms = ["transformer.ln_f"]
    for layer in range(n_layer):
        prefix = f"transformer.h.{layer}."
        norms += [prefix + "ln_1", prefix + "ln_2"]
        for name, shape in matrices.items():
            shapes[f"{prefix}{name}.weight"] = shape
            if bias:
                shapes[f"{prefix}{name}.bias"] = shape[:1]
    for norm in norms:
        shapes[norm + ".weight"] = (n_embd,)
        if norm_bias:
            shapes[norm + ".bias"] = (n_embd,)
    return shapes


def save_stage(folder: Path, stage: str, tensors: dict[str, torch.Tensor], model_args: dict) -> None:
    """Write one checkpoint as Suno's training left it: a compiled model's prefix, a numpy scalar beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "model": {"_orig_mod." + name: tensor for name, tensor in tensors.items()},
            "model_args": model_args,
            "best_val_loss": np.float32(1.5),
        },
        folder / STAGES[stage][0],
    )


def write_codec(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """Save a random codec as encodec releases its weights: the name ends in the file's own SHA-256 prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / "codec.th"
    torch.save({name: draw_codec(name, tuple(shape)) for name, shape in shapes.items()}, unnamed)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()
    return unnamed.rename(folder / f"encodec_24khz-{digest[:8]}.th")


def write_model(folder: Path, bias: bool, seed: int, n_layer: int = 2, n_head: int = 2, n_embd: int = 32) -> None:
    """Write text_2.pt, coarse_2.pt and fine_2.pt of a tiny model to `folder`."""
    for stage, (_, n_input, n_output) in STAGES.items():
        shapes = tensor_shapes(stage, n_layer, n_embd, bias)
        tensors = {name: draw(name, shape, stage, seed) for name, shape in shapes.items()}
        if stage == "fine":
            tensors |= {f"lm_heads.{i}.weight": tensors[f"transformer.wtes.{i + 1}.weight"] for i in range(7)}
        model_args = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "block_size": 1024, "bias": bias}
        model_args |= {"dropout": 0.0, "input_vocab_size": n_input, "output_vocab_size": n_output}
        if stage == "fine":
            model_args |= {"n_codes_total": 8, "n_codes_given": 1}
        save_stage(folder, stage, tensors, model_args)


def write_vocabulary(folder: Path) -> Path:
    """Write a small WordPiece `vocab.txt` that spells every word in the tests' texts."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = [*CHARACTERS, *("##" + c for c in CHARACTERS)]
    punctuation = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    path = folder / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *characters, *punctuation, *WORDS]) + "\n", encoding="utf-8")
    return path


def write_files(folder: Path, bias: bool, codec_shapes: dict[str, tuple[int, ...]]) -> Files:
    """Write a whole tiny model: networks, codec and vocabulary."""
    tokenizer = write_vocabulary(folder / "tokenizer").parent
    files = Files(cache=folder, tokenizer=tokenizer, codec=write_codec(folder, codec_shapes))
    write_model(files.checkpoints, bias, seed=int(bias))
    return files


def load_barkfast(files: Files, patch: pytest.MonkeyPatch) -> ModuleType:
    """`barkfast.generation` with all four networks loaded on the CPU in fp32; finds them as Suno's cache."""
    settings = {
        "XDG_CACHE_HOME": files.cache,
        "HF_HUB_OFFLINE": 1,
        "BARKFAST_TOKENIZER": files.tokenizer,
        "BARKFAST_CODEC": files.codec,
        "BARKFAST_DEVICE": "cpu",
        "BARKFAST_DTYPE": "float32",
        "BARKFAST_ENGINE": "torch",
    }
    for name, value in settings.items():
        patch.setenv(name, str(value))
    for name in ("BARKFAST_MODEL", "BARKFAST_VOICES", "SUNO_USE_SMALL_MODELS", "SUNO_OFFLOAD_CPU"):
        patch.delenv(name, raising=False)
    import barkfast.api
    import barkfast.generation

    # the model behind the functions keeps the place where it found its weights; these lie elsewhere
    barkfast.generation.forget_default_bark()
    barkfast.generation.preload_models()
    return barkfast.generation


def unload_barkfast() -> None:
    """Forget the model, so that the next test finds its own."""
    import barkfast.api

    barkfast.api.default_bark().components.drop()
    barkfast.generation.forget_default_bark()
