"""Every format gives the same tensors, and files that do not fit are refused with their keys named."""

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from barkfast.errors import CheckpointError, MissingFileError
from barkfast.weights import STAGES, open_model

from .build import (
    CONFIGS,
    FORMATS,
    make_tensors,
    model_args,
    needs_transformers,
    same_tensors,
    write_hf,
    write_stage_safetensors,
    write_suno,
)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_gives_the_same_tensors(format_: str, tmp_path: Path) -> None:
    if format_.startswith("hf") and find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    checkpoint = open_model(FORMATS[format_](tmp_path / "model"))
    for stage in STAGES:
        weights = checkpoint.stage(stage)
        assert weights.config == CONFIGS[stage]
        assert same_tensors(weights.tensors, make_tensors(stage))


@pytest.mark.parametrize("format_", ["suno", "stage-safetensors", "hf-safetensors"])
def test_tied_tensors_are_one(format_: str, tmp_path: Path) -> None:
    if format_.startswith("hf") and find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    tensors = open_model(FORMATS[format_](tmp_path / "model")).stage("fine").tensors
    assert all(tensors[f"lm_heads.{i}.weight"] is tensors[f"transformer.wtes.{i + 1}.weight"] for i in range(7))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's peak memory from /proc")
def test_optimizer_state_is_not_read(tmp_path: Path) -> None:
    """Unused content must cost nothing: 200 MB of optimizer state must not show up as memory."""
    path = write_suno(tmp_path) / "fine_2.pt"
    content = torch.load(path, weights_only=False)
    content["optimizer"] = {"exp_avg": torch.ones(50_000_000)}
    torch.save(content, path)
    code = """
import re, sys
from barkfast.weights import open_model
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
open_model("random:demo")
before = peak()
tensors = open_model(sys.argv[1]).stage("fine").tensors
print(peak() - before)
"""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert int(result.stdout) < 50_000


@needs_transformers
def test_generation_config_is_honoured(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "model")
    config = {"semantic_config": {"text_encoding_offset": 10_100}, "coarse_acoustics_config": {"coarse_rate_hz": 50}}
    (folder / "generation_config.json").write_text(json.dumps(config))
    layout = open_model(folder).layout
    assert (layout.semantic.text_offset, layout.coarse.rate_hz) == (10_100, 50)
    assert layout.semantic.vocab_size == 10_000


def test_layout_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    folder = write_suno(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"semantic_config": {"semantic_infer_token": 129_600}}))
    with pytest.raises(CheckpointError, match="token id 129600 .* input_vocab_size is 129600"):
        open_model(folder).stage("text")


def test_large_is_preferred_unless_small_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_suno(write_suno(tmp_path), "", shift=1.0)
    key = "transformer.wpe.weight"
    large = make_tensors("coarse")[key]
    assert torch.equal(open_model(tmp_path).stage("coarse").tensors[key], large)
    assert torch.equal(open_model(tmp_path, small=True).stage("coarse").tensors[key], large + 1)
    monkeypatch.setenv("SUNO_USE_SMALL_MODELS", "True")
    assert torch.equal(open_model(tmp_path).stage("coarse").tensors[key], large + 1)


class Intruder:
    """An object as in a malicious checkpoint: makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickle_with_code_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    folder, mark = write_suno(tmp_path / "model"), tmp_path / "was-here"
    content = {"model": {}, "model_args": {}, "best_val_loss": Intruder(mark)}
    torch.save(content, folder / "text_2.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"calls 'posix\.mkdir'|calls 'nt\.mkdir'"):
        open_model(folder).stage("text")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Intruder(mark)))
    assert mark.exists(), "the intruder is harmless, so this test shows nothing"


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999], ids=["empty", "10 bytes", "half", "almost"])
@pytest.mark.parametrize("format_", ["suno", "suno-legacy", "stage-safetensors"])
def test_truncated_file(format_: str, keep: float, tmp_path: Path) -> None:
    folder = FORMATS[format_](tmp_path / "model")
    path = next(folder.glob("coarse_2.[ps]*"))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=r"coarse_2\.\w+ .*(truncated|missing)"):
        open_model(folder).stage("coarse")


def test_lfs_pointer(tmp_path: Path) -> None:
    folder = write_suno(tmp_path)
    (folder / "text_2.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_model(folder).stage("text")


def test_foreign_checkpoint_names_some_keys(tmp_path: Path) -> None:
    folder = write_suno(tmp_path)
    state = {f"encoder.layer.{i}.weight": torch.zeros(2) for i in range(30)}
    torch.save({"model": state, "model_args": model_args(CONFIGS["text"])}, folder / "text_2.pt")
    with pytest.raises(CheckpointError) as caught:
        open_model(folder).stage("text")
    message = str(caught.value)
    assert "missing: lm_head.weight, transformer.h.0" in message
    assert "30 unexpected: encoder.layer.0.weight" in message and "and 22 more" in message
    assert len(message) < 1500


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    folder = write_suno(tmp_path)
    content = torch.load(folder / "coarse_2.pt", weights_only=False)
    content["model_args"]["n_embd"] = 16
    torch.save(content, folder / "coarse_2.pt")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is \(12096, 8\), expected \(12096, 16\)"):
        open_model(folder).stage("coarse")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "expected 'model' and 'model_args'"),
        ([1, 2], "expected 'model' and 'model_args'"),
        ({"model": {}}, "has no model_args"),
        ({"model": {}, "model_args": {"n_layer": 2}}, "model_args lack n_head"),
        ({"model": {}, "model_args": {"n_layer": 2, "rotary": True}}, "unknown model_args rotary"),
        ({"model": {}, "model_args": model_args(CONFIGS["text"]) | {"n_head": 3}}, "n_embd must be a multiple"),
    ],
)
def test_not_one_of_sunos(content: object, message: str, tmp_path: Path) -> None:
    folder = write_suno(tmp_path)
    torch.save(content, folder / "text_2.pt")
    with pytest.raises(CheckpointError, match=message):
        open_model(folder).stage("text")


def test_safetensors_need_their_json(tmp_path: Path) -> None:
    folder = write_stage_safetensors(tmp_path)
    (folder / "text_2.json").unlink()
    with pytest.raises(MissingFileError, match=r"text_2\.json"):
        open_model(folder).stage("text")


@needs_transformers
def test_missing_shard_and_escaping_index(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "model", max_shard_size="2MB")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shard = content["weight_map"]["semantic.lm_head.weight"]
    (folder / shard).rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(MissingFileError, match=shard):
        open_model(folder).stage("text")
    content["weight_map"]["semantic.lm_head.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="expected files in the same folder"):
        open_model(folder).stage("text")
