"""A converted folder is the same model, opens in barkfast and in transformers, and appears whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from barkfast.errors import CheckpointError, InputError, VoiceError
from barkfast.text import load_tokenizer
from barkfast.weights import STAGES, demo, open_model
from barkfast.weights import convert as module
from barkfast.weights.convert import convert

from .build import CONFIGS, fill_hub_cache, make_tensors, needs_transformers, same_tensors, write_hf, write_suno

IDS = torch.arange(3, 60)[None]


def write_voice(path: Path, first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    semantic = np.arange(first, first + 6)
    np.savez(path, semantic_prompt=semantic, coarse_prompt=np.ones((2, 9), int), fine_prompt=np.ones((8, 9), int))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Suno's files with a tokenizer and two voices beside them, and without a codec."""
    folder = write_suno(tmp_path / "suno")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\na\n")
    write_voice(folder / "announcer.npz")
    write_voice(folder / "voices" / "v2" / "en_speaker_6.npz", first=5)
    return folder


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_round_trip(dtype: str, stored: torch.dtype, source: Path, tmp_path: Path) -> None:
    out = convert(source, tmp_path / "out", dtype, codec=convert("random:nano", tmp_path / "codec", "fp32"))
    before, after = open_model(source, codec=tmp_path / "codec"), open_model(out)
    assert after.layout == before.layout
    for stage in STAGES:
        found = after.stage(stage)
        assert found.config == CONFIGS[stage]
        assert same_tensors(found.tensors, {k: v.to(stored) for k, v in make_tensors(stage).items()})
    assert after.codec().config == before.codec().config
    assert same_tensors(after.codec().tensors, before.codec().tensors)


def test_layout_and_demo_survive(tmp_path: Path) -> None:
    out = convert("random:demo", tmp_path / "out", "float32")
    before, after = open_model("random:demo"), open_model(out)
    assert after.layout == before.layout
    for stage in STAGES:
        assert same_tensors(after.stage(stage).tensors, before.stage(stage).tensors)
    assert (out / "vocab.txt").read_text(encoding="utf-8").startswith("[PAD]\n[UNK]\n")
    for name in ("NOTICE", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (demo.FOLDER / name).read_bytes()


@needs_transformers
@pytest.mark.parametrize("from_", ["suno", "hf"])
def test_transformers_opens_it_and_agrees(from_: str, source: Path, tmp_path: Path) -> None:
    from transformers import BarkModel

    folder = source if from_ == "suno" else write_hf(tmp_path / "hf-model")
    codec = write_hf(tmp_path / "codec")
    expected = BarkModel.from_pretrained(codec).eval()
    out = convert(folder, tmp_path / "out", "float32", codec=codec)
    model, report = BarkModel.from_pretrained(out, output_loading_info=True)
    model.eval()
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    # Masks, which the constructor makes; EnCodec's training state.
    unused = (".attn.bias", ".inited", ".cluster_size", ".embed_avg")
    assert all(key.endswith(unused) for key in report["missing_keys"])
    codes = IDS[None].repeat(1, 8, 1)
    with torch.inference_mode():
        for part in ("semantic", "coarse_acoustics"):
            assert torch.equal(getattr(model, part)(IDS).logits, getattr(expected, part)(IDS).logits)
        fine = [m.fine_acoustics(3, codes.transpose(1, 2)).logits for m in (model, expected)]
        assert torch.equal(*fine)
        audio = [m.codec_decode(codes) for m in (model, expected)]
        torch.testing.assert_close(*audio, atol=1e-6, rtol=0)
    assert model.codec_model.config.num_quantizers == 8
    assert model.generation_config.semantic_config["text_encoding_offset"] == 10_048


def test_it_is_slim(source: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    out = convert(source, tmp_path / "out", codec=convert("random:nano", tmp_path / "codec"))
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        dtypes = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert not any("lm_heads" in key or key.endswith(".attn.bias") for key in dtypes)
    assert all(dtype == (torch.float32 if "codec" in key else torch.bfloat16) for key, dtype in dtypes.items())
    assert sum("codebook" in key for key in dtypes) == 8


def test_tokenizer_and_voices_travel(source: Path, tmp_path: Path) -> None:
    out = convert(source, tmp_path / "out", codec=convert("random:nano", tmp_path / "codec"))
    assert (out / "vocab.txt").read_text() == "[PAD]\n[UNK]\na\n"
    assert json.loads((out / "tokenizer_config.json").read_text())["do_lower_case"] is False
    index = json.loads((out / "speaker_embeddings_path.json").read_text())
    assert set(index) == {"repo_or_path", "announcer", "v2/en_speaker_6"}
    assert np.load(out / index["v2/en_speaker_6"]["semantic_prompt"]).tolist() == [5, 6, 7, 8, 9, 10]
    # And again, from the layout that was just written.
    again = convert(out, tmp_path / "again")
    assert json.loads((again / "speaker_embeddings_path.json").read_text()) == index
    assert np.load(again / index["announcer"]["fine_prompt"]).shape == (8, 9)


@needs_transformers
def test_voices_of_a_hub_repository(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "served")
    for key in ("semantic_prompt", "coarse_prompt", "fine_prompt"):
        (folder / "speaker_embeddings" / "v2").mkdir(parents=True, exist_ok=True)
        np.save(folder / "speaker_embeddings" / "v2" / f"it_speaker_1_{key}.npy", np.ones(4))
    fill_hub_cache("suno/bark", folder, tmp_path)
    out = convert(None, tmp_path / "out")
    index = json.loads((out / "speaker_embeddings_path.json").read_text())
    assert set(index) == {"repo_or_path", "v2/it_speaker_1"}
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_voices_can_be_chosen(source: Path, tmp_path: Path) -> None:
    codec = convert("random:nano", tmp_path / "codec")
    write_voice(tmp_path / "mine" / "v2" / "me.npz")
    out = convert(source, tmp_path / "out", codec=codec, voices=tmp_path / "mine")
    index = json.loads((out / "speaker_embeddings_path.json").read_text())
    assert set(index) == {"repo_or_path", "v2/me"}
    out = convert(source, tmp_path / "none", codec=codec, voices=False)
    assert not (out / "speaker_embeddings_path.json").exists()
    with pytest.raises(InputError, match="not a folder"):
        convert(source, tmp_path / "bad", codec=codec, voices=tmp_path / "nowhere")


def test_voice_index_that_leads_outside(source: Path, tmp_path: Path) -> None:
    entry = dict.fromkeys(("semantic_prompt", "coarse_prompt", "fine_prompt"), "../secret.npy")
    np.save(tmp_path / "secret.npy", np.ones(3))
    (source / "speaker_embeddings_path.json").write_text(json.dumps({"x": entry}))
    with pytest.raises(InputError, match="'x' leads outside"):
        convert(source, tmp_path / "out", codec=convert("random:nano", tmp_path / "codec"))
    assert not (tmp_path / "out").exists()


def test_broken_voice_index_is_named(source: Path, tmp_path: Path) -> None:
    (source / "speaker_embeddings_path.json").write_text("{")
    with pytest.raises(VoiceError, match="speaker_embeddings_path.json is not an index of voices"):
        convert(source, tmp_path / "out", codec=convert("random:nano", tmp_path / "codec"))


def test_missing_tokenizer_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = tmp_path / "bare"
    convert("random:nano", bare, tokenizer=False)
    convert(bare, tmp_path / "out")
    assert "set BARKFAST_TOKENIZER" in caplog.text


def test_random_weights_take_their_stand_in_along(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = convert("random:nano", tmp_path / "out")
    assert "stand-in" in caplog.text
    text = "Any text, äöü 語!"
    ids = load_tokenizer(open_model(folder)).encode(text)
    assert ids == load_tokenizer(open_model("random:nano")).encode(text)


def test_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    convert("random:demo", out)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="earlier conversion; use force"):
        convert("random:demo", out, "float32")
    assert (out / "model.safetensors").read_bytes() == before
    (out / "my-notes.txt").write_text("gone with the folder it was put into")
    convert("random:demo", out, "float32", force=True)
    assert (out / "model.safetensors").stat().st_size > len(before)

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(InputError, match="not an earlier conversion"):
            convert("random:demo", precious, force=force)
    with pytest.raises(InputError, match="a file of that name exists"):
        convert("random:demo", precious / "thesis.tex", force=True)
    assert (precious / "thesis.tex").read_text() == "years of work"
    assert sorted(os.listdir(tmp_path)) == ["out", "precious"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, CheckpointError("damaged")])
def test_interrupted_leaves_nothing_and_loses_nothing(
    error: type[BaseException] | BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert("random:demo", tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    def fail(*args: object) -> bool:
        raise error

    # The last step of a conversion: everything else is written by then.
    monkeypatch.setattr(module, "copy_voices", fail)
    for name in ("out", "new"):
        with pytest.raises(type(error) if isinstance(error, BaseException) else error):
            convert("random:demo", tmp_path / name, "float32", force=True)
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_unwritable_place_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(module, "open_model", never)
    with pytest.raises(InputError, match="not an existing folder"):
        convert("random:demo", tmp_path / "no" / "such" / "out")
    with pytest.raises(InputError, match="unknown dtype 'int8'; expected one of bfloat16"):
        convert("random:demo", tmp_path / "out", "int8")

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Permissions do not stop root, and tests often run as root.
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        convert("random:demo", tmp_path / "out")


def test_source_may_not_be_its_own_target(tmp_path: Path) -> None:
    """Mapped files are read until the end, so the old folder is kept until the new one is whole."""
    out = convert("random:demo", tmp_path / "out", "float32")
    convert(out, out, "bf16", force=True)
    assert open_model(out).stage("text").tensors["lm_head.weight"].dtype == torch.bfloat16
    assert os.listdir(tmp_path) == ["out"]
