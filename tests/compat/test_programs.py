"""How programs that use `bark` call it: web interfaces, cloning scripts, notebooks; each reduced to a few lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import barkfast
from barkfast import generation
from barkfast.generation import codec_decode, generate_coarse, generate_fine, generate_text_semantic

KEYS = ("semantic_prompt", "coarse_prompt", "fine_prompt")


@pytest.fixture
def demo(nano: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo voice, for programs that set no length: its clips end by themselves."""
    monkeypatch.setenv("BARKFAST_MODEL", "demo")
    for name in ("BARKFAST_ENGINE", "BARKFAST_DTYPE"):
        monkeypatch.delenv(name)
    generation.forget_default_bark()
    yield


def speak(text: str = "Hello there", seconds: float = 0.2, **options: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    torch.manual_seed(0)
    semantic = generate_text_semantic(text, max_gen_duration_s=seconds, silent=True, **options)
    return barkfast.semantic_to_waveform(semantic, silent=True, output_full=True)


# A web interface with a page per setting (TTS-WebUI's extension).


def test_interface_that_loads_by_keywords_and_writes_metadata(nano: None, tmp_path: Path) -> None:
    choices = {f"{part}_use_{what}": True for part in ("text", "coarse", "fine") for what in ("gpu", "small")}
    generation.preload_models(**choices, codec_use_gpu=True, force_reload=True)
    models = generation.models
    networks = (models["text"]["model"], models["coarse"], models["fine"])
    assert [network.config.n_embd > 768 for network in networks] == [False] * 3
    full, _ = speak()
    path = tmp_path / "clip.npz"
    metadata = np.frombuffer(json.dumps({"seed": 1}).encode(), np.uint8)
    np.savez(path, **{key: full[key].astype(np.int16) for key in KEYS}, metadata=metadata)
    again, _ = speak(history_prompt=str(path))
    generation.clean_models(model_key="codec")
    assert "codec" not in models
    generation.load_codec_model(use_gpu=True)
    assert codec_decode(again["fine_prompt"].astype(np.int64)).dtype == np.float32
    generation.clean_models()
    assert models == {}


def test_interface_with_a_prompt_that_is_semantic_alone(nano: None) -> None:
    burn_in = generate_text_semantic("One", max_gen_duration_s=0.2, silent=True)
    history = {"coarse_prompt": None, "fine_prompt": None, "semantic_prompt": burn_in}
    assert len(generate_text_semantic("Two", history_prompt=history, max_gen_duration_s=0.2, silent=True))


def test_interface_that_fills_models_from_files_of_its_own(nano: None, tmp_path: Path) -> None:
    from barkfast.model import GPT, GPTConfig
    from barkfast.model_fine import FineGPT, FineGPTConfig

    expected, audio = speak()
    for part, network, config in (
        ("text", GPT, GPTConfig),
        ("coarse", GPT, GPTConfig),
        ("fine", FineGPT, FineGPTConfig),
    ):
        weights = generation.default_bark().checkpoint.stage(part)
        torch.save(dict(weights.tensors), tmp_path / f"{part}.pth")
        names = [*vars(config()), "dropout"]
        (tmp_path / f"{part}.json").write_text(json.dumps({name: getattr(weights.config, name) for name in names}))
        module = network(config(**json.loads((tmp_path / f"{part}.json").read_text())))
        module.load_state_dict(torch.load(tmp_path / f"{part}.pth"), strict=False)
        module.eval().to("cpu")
        tokenizer = generation.models["text"]["tokenizer"]
        generation.models[part] = {"model": module, "tokenizer": tokenizer} if part == "text" else module
    generation.load_codec_model(use_gpu=True, force_reload=True)
    actual, again = speak()
    assert all(np.array_equal(actual[key], expected[key]) for key in KEYS) and np.array_equal(again, audio)


# A web interface with its own generation loops (audio-webui's).


def test_interface_with_a_loop_of_its_own(nano: None) -> None:
    names: dict[str, Any] = {}
    exec("from barkfast.generation import *", names)
    generation.preload_models()
    container = names["models"]["text"]
    text = np.array(generation._tokenize(container["tokenizer"], "Hello there")) + names["TEXT_ENCODING_OFFSET"]
    text = np.pad(text, (0, 256 - len(text)), constant_values=names["TEXT_PAD_TOKEN"])
    prompt = [text, np.full(256, names["SEMANTIC_PAD_TOKEN"]), [names["SEMANTIC_INFER_TOKEN"]]]
    model, x, past = container["model"], torch.from_numpy(np.hstack(prompt))[None], None
    with generation._inference_mode():
        x = x.to(next(model.parameters()).device)
        for _ in range(6):
            logits, past = model(x if past is None else x[:, [-1]], merge_context=True, use_cache=True, past_kv=past)
            probs = names["F"].softmax(logits[0, 0, : names["SEMANTIC_VOCAB_SIZE"]], dim=-1)
            x = torch.cat((x, probs.argmax()[None, None]), dim=1)
    ours = generate_text_semantic("Hello there", temp=0, max_gen_duration_s=5.5 / 49.9, silent=True)
    assert x[0, 513:].tolist() == ours.tolist()
    codes = torch.randint(0, 1024, (8, 5), generator=torch.Generator().manual_seed(0))
    window = torch.full((1, 1024, 8), 1024)
    assert names["models"]["fine"](1, window).shape == (1, 1024, 1056)
    codec = names["models"]["codec"]
    out = codec.decoder(codec.quantizer.decode(codes[None].transpose(0, 1))).detach().numpy().squeeze()
    np.testing.assert_allclose(out, codec_decode(codes.numpy()), atol=1e-6)


def test_interface_that_compiles_and_halves(nano: None) -> None:
    generation.preload_models()
    generation.models["fine"] = torch.compile(generation.models["fine"].bfloat16())
    coarse = np.zeros((2, 4), np.int32)
    assert generate_fine(coarse, temp=None).shape == (8, 4)
    assert generation.models["fine"].model.transformer.wpe.weight.dtype == torch.bfloat16


# A web interface with chunks and saved voices (bark-gui's).


def test_interface_that_speaks_a_voice_s_own_codes(nano: None, tmp_path: Path) -> None:
    full, audio = speak()
    path = str(tmp_path / "last.npz")
    barkfast.save_as_prompt(path, full)
    assert np.array_equal(codec_decode(generation._load_history_prompt(path)["fine_prompt"]), audio)
    semantic = generate_text_semantic(
        "Next", history_prompt=path, temp=0.6, min_eos_p=0.05, max_gen_duration_s=0.2, silent=True, use_kv_caching=True
    )
    coarse = generate_coarse(semantic, history_prompt=path, temp=0.7, silent=True, use_kv_caching=True)
    assert codec_decode(generate_fine(coarse, history_prompt=path, temp=0.5)).shape == (320 * coarse.shape[1],)


# Voice cloning scripts.


def test_cloning_script(nano: None, tmp_path: Path) -> None:
    model = generation.load_codec_model(use_gpu=torch.cuda.is_available())
    recording, rate = torch.randn(2, 9600, generator=torch.Generator().manual_seed(0)) * 0.1, 24_000
    assert (model.sample_rate, model.channels, model.quantizer.n_q) == (rate, 1, 8)
    wav = recording.mean(0, keepdim=True).unsqueeze(0).to("cpu")
    model.to("cpu")
    with torch.no_grad():
        encoded_frames = model.encode(wav)
    codes = torch.cat([encoded[0] for encoded in encoded_frames], dim=-1).squeeze()
    seconds = wav.shape[-1] / model.sample_rate
    semantic = generate_text_semantic("Hello", max_gen_duration_s=seconds, top_k=50, top_p=0.95, temp=0.7, silent=True)
    codes = codes.cpu().numpy()
    path = str(tmp_path / "cloned.npz")
    np.savez(path, fine_prompt=codes, coarse_prompt=codes[:2, :], semantic_prompt=semantic)
    assert codes.shape == (8, 30) and len(speak(history_prompt=path)[1])


# Suno's notebooks.


def test_notebook_that_measures_small_and_large(demo: None) -> None:
    for offload, small in ((True, True), (False, False)):
        generation.OFFLOAD_CPU = offload
        barkfast.preload_models(text_use_small=small, coarse_use_small=small, fine_use_small=small, force_reload=True)
        torch.manual_seed(1)
        assert len(barkfast.generate_audio("oh.", silent=True))


def test_notebook_of_long_texts_and_dialogues(demo: None) -> None:
    silence, pieces = np.zeros(int(0.25 * barkfast.SAMPLE_RATE)), []
    torch.manual_seed(1)
    full, audio = barkfast.generate_audio("hello there.", silent=True, output_full=True)
    for line in ("ann: a house.", "bob: a tree."):
        _, text = line.split(": ")
        semantic = generate_text_semantic(text, history_prompt=full, temp=0.6, min_eos_p=0.05, silent=True)
        pieces += [barkfast.semantic_to_waveform(semantic, history_prompt=full), silence.copy()]
        pieces += [barkfast.generate_audio(text, history_prompt=full), silence.copy()]
    assert np.concatenate(pieces).shape[0] > audio.shape[0]
