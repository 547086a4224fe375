"""Single networks: logits against the reference's modules and transformers' BarkModel, sound against encodec."""

import numpy as np
import pytest
import torch

from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT, KVCache
from barkfast.weights import open_model

from .reference import SIZES, Files, Pair, assert_logits, build_module, tiny

N_STEPS = 24
# transformers' attention is another algorithm, whose fp32 rounding stays far below this on logits of about 10.
LOGITS_TOLERANCE = 1e-4


def semantic_prompt(seed: int = 0) -> torch.Tensor:
    """A merged prompt, (1, 513), and tokens to follow it."""
    random = np.random.default_rng(seed)
    ids = np.concatenate([random.integers(10_048, 129_595, 256), random.integers(0, 10_001, 256), [129_599]])
    return torch.from_numpy(np.concatenate([ids, random.integers(0, 10_000, N_STEPS)]))[None]


def coarse_prompt(n_coarse: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    codes = random.integers(10_000, 11_024, n_coarse + N_STEPS) + 1024 * (np.arange(n_coarse + N_STEPS) % 2)
    return torch.from_numpy(np.concatenate([random.integers(0, 10_000, 256), [12_050], codes]))[None]


def fine_codes(n_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 1025, (1, n_frames, 8)))


def load_gpt(files: Files, stage: str) -> GPT:
    weights = open_model(files.checkpoints).stage(stage)
    model = GPT(weights.config)
    model.load_state_dict(weights.tensors)
    return model.eval()


def load_fine(files: Files) -> FineGPT:
    weights = open_model(files.checkpoints).stage("fine")
    model = FineGPT(weights.config)
    model.load_state_dict(weights.tensors)
    return model.eval()


def rename_for_transformers(name: str) -> str:
    """A key of Suno's checkpoints as transformers' BarkModel calls it."""
    names = {
        "transformer.h.": "layers.",
        "transformer.": "",
        "wtes": "input_embeds_layers",
        "wte": "input_embeds_layer",
        "wpe": "position_embeds_layer",
        "ln_f": "layernorm_final",
        "ln_": "layernorm_",
        "c_attn": "att_proj",
        "c_proj": "out_proj",
        "c_fc": "in_proj",
    }
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def build_for_transformers(stage: str, module: torch.nn.Module) -> torch.nn.Module:
    """The matching part of transformers' BarkModel with the weights of a module of the reference."""
    from transformers.models.bark import configuration_bark, modeling_bark

    name = {"text": "Semantic", "coarse": "Coarse", "fine": "Fine"}[stage]
    n_layer, n_head, n_embd = SIZES[stage]
    _, n_input, n_output = tiny.STAGES[stage]
    config = getattr(configuration_bark, f"Bark{name}Config")(
        num_layers=n_layer,
        num_heads=n_head,
        hidden_size=n_embd,
        input_vocab_size=n_input,
        output_vocab_size=n_output,
        bias=module.config.bias,
        dropout=0.0,
    )
    model = getattr(modeling_bark, f"Bark{name}Model")(config)
    state = {rename_for_transformers(key): value for key, value in module.state_dict().items()}
    loaded = model.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all(key.endswith("attn.bias") for key in loaded.missing_keys), loaded.missing_keys
    return model.eval()


def run_reference(module: torch.nn.Module, tokens: torch.Tensor, n_prompt: int, merged: bool) -> torch.Tensor:
    """Logits after the prompt and after each later token, (1 + N_STEPS, vocabulary), with the reference's cache."""
    logits, cache = module(tokens[:, :n_prompt], merge_context=merged, use_cache=True)
    rows = [logits[0, 0]]
    for i in range(n_prompt, tokens.shape[1]):
        logits, cache = module(tokens[:, [i]], use_cache=True, past_kv=cache)
        rows.append(logits[0, 0])
    return torch.stack(rows)


def run_barkfast(model: GPT, tokens: torch.Tensor, n_prompt: int, n_merged: int) -> torch.Tensor:
    """The same with barkfast's static cache; the whole vocabulary at once."""
    cache = KVCache(model.config, device=torch.device("cpu"), dtype=torch.float32)
    n_vocabulary = model.config.output_vocab_size
    rows = [model.logits(model(tokens[:, :n_prompt], cache, n_merged), 0, n_vocabulary)[0]]
    for i in range(n_prompt, tokens.shape[1]):
        rows.append(model.logits(model(tokens[:, [i]], cache), 0, n_vocabulary)[0])
    return torch.stack(rows)


def run_transformers(model: torch.nn.Module, tokens: torch.Tensor, n_prompt: int, merged: bool) -> torch.Tensor:
    """The same by transformers, uncached: all positions in one forward pass."""
    embeds = model.input_embeds_layer(tokens)
    if merged:
        embeds = torch.cat([embeds[:, :256] + embeds[:, 256:512], embeds[:, 512:]], dim=1)
        n_prompt -= 256
    return model(inputs_embeds=embeds, use_cache=False).logits[0, n_prompt - 1 :]


CASES = {
    "text": ("text", semantic_prompt(), 513),
    "coarse, no voice": ("coarse", coarse_prompt(0), 257),
    "coarse, a voice": ("coarse", coarse_prompt(630), 887),
}


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_gpt_logits(files: Files, case: str) -> None:
    stage, tokens, n_prompt = CASES[case]
    merged = stage == "text"
    module, model = build_module(stage, "True" in str(files.cache)), load_gpt(files, stage)
    ours = run_barkfast(model, tokens, n_prompt, 256 if merged else 0)
    assert_logits(ours, run_reference(module, tokens, n_prompt, merged))
    theirs = run_transformers(build_for_transformers(stage, module), tokens, n_prompt, merged)
    assert ours.shape == theirs.shape == (1 + N_STEPS, tiny.STAGES[stage][2])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=LOGITS_TOLERANCE)


@pytest.mark.parametrize(
    ("stage", "first", "end"),
    [("text", 0, 10_000), ("text", 0, 10_001), ("coarse", 10_000, 11_024), ("coarse", 11_024, 12_048)],
)
@torch.inference_mode()
def test_a_slice_of_the_head(files: Files, stage: str, first: int, end: int) -> None:
    model = load_gpt(files, stage)
    hidden = torch.randn(50, 1, 1, model.config.n_embd, generator=torch.Generator().manual_seed(0))
    for row in hidden:
        whole = torch.nn.functional.linear(row, model.lm_head.weight)[:, 0]
        assert_logits(model.logits(row, first, end), whole[:, first:end])


@pytest.mark.parametrize("n_frames", [1024, 37])
@torch.inference_mode()
def test_fine_logits(files: Files, n_frames: int) -> None:
    codes = fine_codes(n_frames)
    module, model = build_module("fine", "True" in str(files.cache)), load_fine(files)
    theirs = build_for_transformers("fine", module)
    for codebook in range(1, 8):
        ours = model(codes, codebook)
        assert_logits(ours, module(codebook, codes))
        torch.testing.assert_close(ours, theirs(codebook, codes).logits, rtol=0, atol=LOGITS_TOLERANCE)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 7, 75, 300])
def test_codec_waveform(pair: Pair, n_frames: int) -> None:
    codes = np.random.default_rng(n_frames).integers(0, 1024, (8, n_frames)).astype(np.int32)
    expected, actual = pair.run_both("codec_decode", codes)
    assert actual.dtype == expected.dtype == np.float32
    assert actual.shape == expected.shape == (320 * n_frames,)
    assert expected.std() > 0.05, "a waveform this faint would pass by its smallness"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_codebooks", [1, 2, 4])
def test_codec_with_fewer_codebooks(pair: Pair, n_codebooks: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1024, (n_codebooks, 20))
    expected, actual = pair.run_both("codec_decode", codes)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
