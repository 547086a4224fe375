"""Suno's Bark and barkfast load the same random checkpoints and run the same calls; the results are compared.

The reference is the `bark` package (the wheel `tts-webui.bark`, Suno's last state) and `encodec`, unchanged. Only what
surrounds it is supplied: a stand-in for torchaudio (needed only by an import), files instead of downloads, and
permission for torch.load to read the numpy scalar in a checkpoint.
"""

import importlib.machinery
import sys
import types
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from golden import tiny
from golden.tiny import Files

SIZES = {"text": (2, 2, 64), "coarse": (2, 2, 48), "fine": (2, 2, 48)}
PRESETS = (
    "announcer",  # uint16 arrays
    "de_speaker_7",  # 1098 frames
    "en_speaker_6",  # 158 semantic tokens, fewer than the history slots
    "tr_speaker_4",  # odd number of coarse history tokens
    "v2/en_speaker_6",
    "v2/tr_speaker_5",  # odd as well
    "v2/zh_speaker_6",  # odd as well
)
VOICES = (None, *PRESETS)


@dataclass
class Tally:
    """Counts of what this run compared: token sequences, and outputs of single networks."""

    compared: int = 0
    identical: int = 0
    logits: int = 0
    same_bits: int = 0


tally = Tally()


def import_reference() -> tuple[ModuleType, ModuleType]:
    """The modules `bark` and `bark.generation`, imported with a stand-in for torchaudio."""
    if "bark.generation" not in sys.modules and "torchaudio" not in sys.modules:
        from transformers.utils import is_torchaudio_available

        # transformers caches its first answer, so ask before the stand-in is installed
        is_torchaudio_available()
        stand_in = types.ModuleType("torchaudio")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = stand_in
        try:
            import bark.generation
        finally:
            del sys.modules["torchaudio"]
    import bark
    import bark.generation

    return bark, bark.generation


def build_module(stage: str, bias: bool) -> torch.nn.Module:
    """One network of the reference at nano size, Suno's vocabularies, with random weights."""
    import_reference()
    from bark.model import GPT, GPTConfig
    from bark.model_fine import FineGPT, FineGPTConfig

    n_layer, n_head, n_embd = SIZES[stage]
    _, n_input, n_output = tiny.STAGES[stage]
    build, config = (FineGPT, FineGPTConfig) if stage == "fine" else (GPT, GPTConfig)
    module = build(
        config(
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            input_vocab_size=n_input,
            output_vocab_size=n_output,
            bias=bias,
        )
    )
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tiny.draw(name, tuple(parameter.shape), stage, seed=int(bias)))
    return module.eval()


def build_codec() -> torch.nn.Module:
    """encodec's 24 kHz model, not yet given weights."""
    import_reference()
    from encodec import EncodecModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = EncodecModel.encodec_model_24khz(pretrained=False)
    model.set_target_bandwidth(6.0)
    return model.eval()


@lru_cache
def load_codec(path: Path) -> torch.nn.Module:
    """encodec's 24 kHz model with the weights in `path`, which may leave out the encoder."""
    model = build_codec()
    loaded = model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    assert not loaded.unexpected_keys
    return model


def codec_shapes() -> dict[str, tuple[int, ...]]:
    """Key -> shape of every tensor in encodec's released file."""
    return {name: tuple(value.shape) for name, value in build_codec().state_dict().items()}


def write_files(folder: Path, bias: bool, codec: Path) -> Files:
    """Save the three networks as Suno's `.pt` files, and a vocabulary."""
    files = Files(cache=folder, tokenizer=tiny.write_vocabulary(folder / "tokenizer").parent, codec=codec)
    for stage in tiny.STAGES:
        module = build_module(stage, bias)
        tiny.save_stage(files.checkpoints, stage, module.state_dict(), dict(vars(module.config)))
    return files


def numpy_scalars() -> list[Any]:
    """What a weights-only load must allow for `best_val_loss`."""
    build = np.float32(0).__reduce__()[0]
    return [
        (build, "numpy.core.multiarray.scalar"),
        (build, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.float64)),
    ]


def read_tokenizer(folder: Path) -> Any:
    """transformers' BertTokenizer, cased as bert-base-multilingual-cased is, on the vocabulary in `folder`."""
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(str(folder), do_lower_case=False)


def load_reference(files: Files) -> ModuleType:
    """`bark.generation` with all four models loaded on the CPU: the networks through its own loader."""
    _, generation = import_reference()
    tokenizer = read_tokenizer(files.tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "CACHE_DIR", str(files.checkpoints))
        patch.setattr(generation, "USE_SMALL_MODELS", False)
        patch.setattr(generation.BertTokenizer, "from_pretrained", lambda name: tokenizer)
        with torch.serialization.safe_globals(numpy_scalars()):
            for stage in tiny.STAGES:
                generation.load_model(use_gpu=False, force_reload=True, model_type=stage)
    generation.models["codec"] = load_codec(files.codec)
    return generation


@dataclass(frozen=True)
class Pair:
    """`bark.generation` and `barkfast.generation` on the same weights."""

    reference: ModuleType
    barkfast: ModuleType
    files: Files

    def run_both(self, function: str, *args: Any, seed: int = 0, **options: Any) -> tuple[Any, Any]:
        """Call `function` of both under the same seed; both must leave torch's generator in the same state."""
        torch.manual_seed(seed)
        expected = getattr(self.reference, function)(*args, **options)
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        actual = getattr(self.barkfast, function)(*args, **options)
        assert torch.equal(torch.get_rng_state(), state), f"{function} consumed other random numbers than the reference"
        return expected, actual

    def compare_tokens(self, function: str, *args: Any, seed: int = 0, **options: Any) -> np.ndarray:
        """Call `function` of both under the same seed, assert identical tokens, and return them."""
        expected, actual = self.run_both(function, *args, seed=seed, **options)
        assert_identical(actual, expected)
        return expected


def assert_identical(actual: np.ndarray, expected: np.ndarray) -> None:
    """One token sequence equals the reference's: type, dtype, shape and every token. Counted."""
    tally.compared += 1
    assert type(actual) is type(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)
    tally.identical += 1


def assert_logits(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert that logits equal the reference modules' up to fp32 rounding; count them, and those with equal bits.

    The bits agree on the CPU where the tests were written. On another, torch may choose other kernels for other shapes.
    """
    tally.logits += 1
    tally.same_bits += torch.equal(actual, expected)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
