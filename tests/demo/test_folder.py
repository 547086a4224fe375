"""The demo voice's folder: an ordinary Bark model of bounded size, with nothing in it that could run code."""

import json
import zipfile

import pytest

from barkfast.config import Layout
from barkfast.text import Tokenizer
from barkfast.voices import check_voice, find_voices, load_voice
from barkfast.weights import STAGES, open_model
from barkfast.weights.demo import FOLDER

VOICES = ("calm", "lively", "plain")
FILES = {
    *("README.md", "NOTICE", "config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json"),
    *("units.json", "vocab.txt", *(f"voices/{name}.npz" for name in VOICES)),
}


def test_it_holds_these_files_and_is_small() -> None:
    found = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.is_file()}
    assert set(found) == FILES
    assert sum(path.stat().st_size for path in found.values()) <= 15_000_000


def test_no_file_is_a_pickle() -> None:
    for path in FOLDER.rglob("*"):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                assert all(archive.read(name)[:6] == b"\x93NUMPY" for name in archive.namelist())
        elif path.is_file():
            # A pickle's first byte; a safetensors file begins with the length of its header.
            assert path.read_bytes()[:1] != b"\x80" or path.suffix == ".safetensors"


def test_it_opens_as_any_model_does() -> None:
    checkpoint = open_model("demo")
    assert (checkpoint.name, checkpoint.folder) == ("demo", FOLDER)
    for stage in STAGES:
        checkpoint.stage(stage)
    checkpoint.codec()
    assert open_model(FOLDER).layout == checkpoint.layout


def test_its_tokens_are_its_own() -> None:
    layout = open_model("demo").layout
    tokenizer = Tokenizer.from_path(FOLDER)
    assert layout.semantic.vocab_size != Layout().semantic.vocab_size
    assert layout.semantic.text_offset + tokenizer.vocab_size <= layout.semantic.text_pad_token
    units = json.loads((FOLDER / "units.json").read_text(encoding="utf-8"))["units"]
    assert len(units) == layout.semantic.vocab_size
    assert all(isinstance(phone, str) and state in range(4) and level in range(3) for phone, state, level in units)
    assert len({tuple(unit) for unit in units}) == len(units)


@pytest.mark.parametrize("name", VOICES)
def test_its_voices_fit_it(name: str) -> None:
    checkpoint = open_model("demo")
    assert name in find_voices(checkpoint)
    voice = load_voice(name, checkpoint)
    assert voice is not None
    check_voice(voice, checkpoint.layout)


@pytest.mark.parametrize("name", ["README.md", "NOTICE"])
def test_it_names_what_it_was_made_from(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    for source in ("Carnegie Mellon University", "WordNet", "HTS"):
        assert source in text
