"""No file runs code, whatever the program around barkfast has done to torch.load and numpy.load."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.errors import BarkfastError
from barkfast.voices import load_voice
from barkfast.weights import open_model
from barkfast.weights.attachments import copy_voices
from barkfast.weights.codec import open_codec

from .build import make_tensors, same_tensors, write_suno

KEYS = ("semantic_prompt", "coarse_prompt", "fine_prompt")


class Intruder:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def force(load: Callable[..., Any], **forced: Any) -> Callable[..., Any]:
    return lambda *args, **options: load(*args, **{**options, **forced})


def partial_default(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "load", functools.partial(torch.load, weights_only=False))
    patch.setattr(np, "load", functools.partial(np.load, allow_pickle=True))


def forced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "load", force(torch.load, weights_only=False))
    patch.setattr(np, "load", force(np.load, allow_pickle=True))


def forced_in_both_homes(patch: pytest.MonkeyPatch) -> None:
    forced(patch)
    patch.setattr(torch.serialization, "load", torch.load)


def by_environment(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    forced(patch)


PATCHES = [partial_default, forced, forced_in_both_homes, by_environment]


@pytest.fixture(params=PATCHES, ids=lambda patch: patch.__name__)
def patched(request: pytest.FixtureRequest) -> Iterator[None]:
    """What users paste into their programs since torch 2.6 refuses Suno's files."""
    with pytest.MonkeyPatch.context() as patch:
        request.param(patch)
        yield


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ["network", "codec"])
def test_weights_run_no_code(kind: str, zipped: bool, patched: None, tmp_path: Path) -> None:
    mark, path = tmp_path / "was-here", tmp_path / ("text_2.pt" if kind == "network" else "codec.th")
    if kind == "network":
        write_suno(tmp_path)
    torch.save({"model": Intruder(mark), "model_args": {}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BarkfastError, match="was refused"):
        open_model(tmp_path).stage("text") if kind == "network" else open_codec(path, 8)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the intruder is harmless, so this test shows nothing"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_sound_weights_are_read(zipped: bool, patched: None, tmp_path: Path) -> None:
    weights = open_model(write_suno(tmp_path, zipped=zipped)).stage("text")
    assert same_tensors(weights.tensors, make_tensors("text"))


def intruding_voice(mark: Path) -> dict[str, np.ndarray]:
    array = np.empty(1, dtype=object)
    array[0] = Intruder(mark)
    return dict.fromkeys(KEYS, array)


def test_voices_run_no_code(patched: None, tmp_path: Path) -> None:
    mark, path = tmp_path / "was-here", tmp_path / "voices" / "voice.npz"
    path.parent.mkdir()
    np.savez(path, **intruding_voice(mark))
    with pytest.raises(BarkfastError, match="allow_pickle"):
        load_voice(str(path))
    with pytest.raises(BarkfastError, match="allow_pickle"):
        copy_voices(open_model("random:nano"), tmp_path, path.parent)
    assert not mark.exists()
    np.load(path, allow_pickle=True)["fine_prompt"]
    assert mark.exists(), "the intruder is harmless, so this test shows nothing"


def test_voices_of_three_files_run_no_code(patched: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, folder = tmp_path / "was-here", tmp_path / "speaker_embeddings"
    folder.mkdir()
    for key, array in intruding_voice(mark).items():
        np.save(folder / f"somebody_{key}.npy", array)
    monkeypatch.setenv("BARKFAST_VOICES", str(tmp_path))
    with pytest.raises(BarkfastError, match="allow_pickle"):
        load_voice("somebody")
    assert not mark.exists()


@pytest.mark.parametrize("bare", ["npy", "pickle"])
def test_a_bare_pickle_is_no_voice(bare: str, patched: None, tmp_path: Path) -> None:
    """numpy.load unpickles files that are neither .npy nor .npz."""
    mark, path = tmp_path / "was-here", tmp_path / "voice.npz"
    array = intruding_voice(mark)["fine_prompt"]
    path.write_bytes(array.dumps()) if bare == "pickle" else np.save(path.open("wb"), array)
    with pytest.raises(BarkfastError, match="not an .npz archive"):
        load_voice(str(path))
    assert not mark.exists()


def test_the_program_s_own_safe_globals_stay(tmp_path: Path) -> None:
    write_suno(tmp_path)
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([np.dtype, Intruder])
    try:
        open_model(tmp_path).stage("text")
        assert set(torch.serialization.get_safe_globals()) == {np.dtype, Intruder}
    finally:
        torch.serialization.clear_safe_globals()
