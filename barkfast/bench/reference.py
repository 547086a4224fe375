"""Suno's `bark` on the weights of a checkpoint of ours: its modules, imported and filled."""

import importlib.machinery
import sys
import types
import warnings
from types import ModuleType
from typing import Any

import torch

from barkfast.bench.backends import NotInstalled, NotRun
from barkfast.config import FineConfig, GPTConfig
from barkfast.errors import EngineError
from barkfast.text import Tokenizer
from barkfast.weights import STAGES, Checkpoint

# With their dependencies the last two would pull torchaudio, which nothing here needs.
INSTALL = "pip install 'barkfast[reference]' && pip install --no-deps tts-webui.bark==0.1.1 encodec==0.1.1"


def import_reference() -> ModuleType:
    """`bark.generation`, with a stand-in for torchaudio, of which `encodec` uses nothing here but the import.

    Errors: NotInstalled.
    """
    try:
        # transformers remembers its first answer, which must not be given while the stand-in is there.
        import transformers.utils

        transformers.utils.is_torchaudio_available()
        absent = "torchaudio" not in sys.modules
        if absent:
            stand_in = types.ModuleType("torchaudio")
            stand_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
            sys.modules["torchaudio"] = stand_in
        try:
            import bark.generation
        finally:
            if absent:
                del sys.modules["torchaudio"]
    except Exception as error:
        raise NotInstalled(say_absent("bark", error, INSTALL)) from error
    return bark.generation


def say_absent(name: str, error: Exception, install: str) -> str:
    return f"{name} cannot be imported ({type(error).__name__}: {error}); install it: {install}"


class _BertLike:
    """Our tokenizer with the one method that `bark` calls on its own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return self._tokenizer.encode(text)


def load_reference(generation: Any, checkpoint: Checkpoint, tokenizer: Tokenizer, device: torch.device) -> None:
    """Put a checkpoint's weights into the reference's own modules, where its functions look for them.

    Its codec keeps the weights that encodec makes up: its time does not depend on them.
    Errors: NotRun where the model speaks other tokens than Suno's; EngineError for weights that do not fit.
    """
    layout = checkpoint.layout
    known = (generation.SEMANTIC_VOCAB_SIZE, generation.CODEBOOK_SIZE)
    if (layout.semantic.vocab_size, layout.codebook_size) != known:
        raise NotRun(f"bark knows only Suno's tokens, and {checkpoint.name} has others")
    networks = {stage: _reference_network(checkpoint, stage, device) for stage in STAGES}
    generation.models["text"] = {"model": networks["text"], "tokenizer": _BertLike(tokenizer)}
    generation.models |= {"coarse": networks["coarse"], "fine": networks["fine"]}
    with warnings.catch_warnings():
        # Of a function's new name in torch.
        warnings.simplefilter("ignore", FutureWarning)
        codec = generation.EncodecModel.encodec_model_24khz(pretrained=False)
    codec.set_target_bandwidth(6.0)
    generation.models["codec"] = codec.eval().to(device)


def _reference_network(checkpoint: Checkpoint, stage: str, device: torch.device) -> torch.nn.Module:
    from bark.model import GPT
    from bark.model import GPTConfig as Config
    from bark.model_fine import FineGPT
    from bark.model_fine import FineGPTConfig as FineConf

    weights = checkpoint.stage(stage)
    build, make = (FineGPT, FineConf) if stage == "fine" else (GPT, Config)
    network = build(make(**_sizes(weights.config)))
    tensors = {name: value.float() for name, value in weights.tensors.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    wrong = [name for name in missing if not name.endswith(".attn.bias")] + list(unexpected)
    if wrong:
        raise EngineError(f"the reference's {stage} network does not take the weights: {wrong[:5]}")
    return network.eval().to(device)


def _sizes(config: GPTConfig | FineConfig) -> dict[str, Any]:
    """Under the reference's names, which are ours."""
    names = ["block_size", "input_vocab_size", "output_vocab_size", "n_layer", "n_head", "n_embd", "bias"]
    if isinstance(config, FineConfig):
        names += ["n_codes_total", "n_codes_given"]
    return {name: getattr(config, name) for name in names}
