"""`~` in every path that a user gives, in code, on the command line and in environment variables; odd paths."""

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from barkfast import Generation
from barkfast.audio import check_output, write_audio, writing_audio
from barkfast.cache import cache_folder
from barkfast.cli.inputs import read_cast, read_file
from barkfast.errors import BarkfastError, InputError, OutputError
from barkfast.files import check_writable, expand, replacing
from barkfast.text import load_tokenizer
from barkfast.voices import find_voices, load_voice, save_voice
from barkfast.weights import demo, open_model, suno
from barkfast.weights.convert import convert

TONE = np.zeros(100, np.float32)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a model and a voice; the working folder is another one."""
    place = tmp_path / "home"
    shutil.copytree(demo.FOLDER, place / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (place / "model" / "model.safetensors").symlink_to(demo.FOLDER / "model.safetensors")
    voices = place / "voices"
    voices.mkdir()
    codes = np.ones((8, 30), np.int32)
    save_voice(voices / "me.npz", {"semantic_prompt": np.arange(20), "coarse_prompt": codes[:2], "fine_prompt": codes})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(place))
    return place


def test_reading(home: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = open_model("~/model", codec="~/model")
    assert checkpoint.folder == home / "model" and checkpoint.codec()
    assert load_tokenizer(checkpoint, "~/model/vocab.txt").origin == str(home / "model" / "vocab.txt")
    assert load_voice("~/voices/me.npz") and load_voice(Path("~/voices/me.npz")) and load_voice("me", None, "~/voices")
    assert read_cast(["Ann=~/voices/me.npz"])["Ann"]
    (home / "book.txt").write_text("Hello.")
    assert "".join(read_file("~/book.txt")[0]) == "Hello."
    for name, value in {
        "BARKFAST_MODEL": "~/model",
        "BARKFAST_TOKENIZER": "~/model",
        "BARKFAST_VOICES": "~/voices",
        "BARKFAST_CODEC": "~/model",
        "BARKFAST_CACHE": "~/kept",
    }.items():
        monkeypatch.setenv(name, value)
    checkpoint = open_model()
    assert checkpoint.folder == home / "model" and checkpoint.codec()
    assert load_tokenizer(checkpoint).origin == str(home / "model" / "vocab.txt")
    assert "me" in find_voices(checkpoint) and cache_folder() == home / "kept"
    monkeypatch.delenv("BARKFAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/c")
    assert cache_folder() == home / "c" / "barkfast" and suno.cache_folder() == home / "c" / "suno" / "bark_v0"


def test_writing(home: Path):
    check_output("~/a.wav")
    write_audio("~/a.wav", TONE, 24_000)
    with writing_audio("~/b.flac", 24_000) as write:
        write(TONE)
    save_voice("~/c.npz", load_voice("~/voices/me.npz"))
    assert convert("~/model", "~/d", voices="~/voices") == home / "d"
    assert {"a.wav", "b.flac", "c.npz", "d"} <= {path.name for path in home.iterdir()}
    assert not os.listdir()


@pytest.mark.parametrize("path", ["no/x.wav", "~/no/x.wav", "~nobody-of-that-name/x.wav", "model/x.wav"])
def test_errors_name_the_path_that_was_given(home: Path, path: str):
    Path("model").touch()
    for work in (
        check_writable,
        lambda path: write_audio(path, TONE, 24_000),
        lambda path: replacing(path).__enter__(),
    ):
        with pytest.raises(OutputError) as error:
            work(path)
        assert f"cannot write {path}: " in str(error.value) and ".part" not in str(error.value)


def test_an_unwritable_folder_is_named_as_given(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied", ".0123.part")

    monkeypatch.setattr("os.open", refuse)
    for work in (check_writable, lambda path: write_audio(path, TONE, 24_000)):
        with pytest.raises(OutputError, match=r"^cannot write \./x\.wav: Permission denied"):
            work("./x.wav")


def test_devices_and_pipes_are_not_replaced():
    os.mkfifo("pipe.wav")
    Path("null.wav").symlink_to(os.devnull)
    for name in ("pipe.wav", "null.wav"):
        with pytest.raises(OutputError, match="device or a pipe"):
            write_audio(name, TONE, 24_000)


@pytest.mark.parametrize("path", ["a\0b.wav", 5, None, ["x.wav"]])
def test_what_is_no_path_is_refused(path: object):
    with pytest.raises(InputError, match="path is"):
        expand(path)
    with pytest.raises(BarkfastError):
        write_audio(path, TONE, 24_000)


def make_generation(n_samples: int, **timings: float) -> Generation:
    codes = np.ones((8, 1), np.int32)
    return Generation(np.zeros(n_samples, np.float32), 24_000, np.ones(1, np.int64), codes[:2], codes, timings)


def test_the_real_time_factor_of_an_empty_clip():
    assert make_generation(24_000, semantic=0.5).real_time_factor == 0.5
    assert make_generation(0, semantic=0.5).real_time_factor == math.inf
    assert math.isnan(make_generation(0).real_time_factor)


def test_an_empty_clip_is_an_error_and_no_crash(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    from barkfast import Bark
    from barkfast.cli import main

    monkeypatch.setattr(Bark, "load", lambda self: None)
    monkeypatch.setattr(Bark, "generate", lambda self, text, voice=None, **options: make_generation(0, codec=0.1))
    assert main(["say", "Hi.", "-o", "x.wav", "--model", "demo"]) == 1
    assert capsys.readouterr().err.startswith("barkfast: error: ") and not os.listdir()


@pytest.mark.parametrize(
    ("voice", "said"),
    [
        *((word, "pass None") for word in ("None", "none", "null", "", " ", "Unconditional")),
        ("x.pt", "numpy.savez"),
        ("~/x.npy", "single array"),
        ("me.WAV", "recording"),
        (Path("x.json"), "save-voice"),
        ("/", "folder"),
    ],
)
def test_what_cannot_be_a_voice_is_refused_with_what_to_do(voice: object, said: str):
    with pytest.raises(BarkfastError, match=said):
        load_voice(voice)


def test_random_weights_bring_a_tokenizer_and_say_so(caplog: pytest.LogCaptureFixture, home: Path):
    tokenizer = load_tokenizer(open_model("random:nano"))
    assert len(tokenizer.encode("Hello")) == 5 and "stand-in" in tokenizer.origin
    assert [record.message for record in caplog.records if "stand-in" in record.message]
    caplog.clear()
    given = load_tokenizer(open_model("random:nano"), home / "model")
    assert given.origin.endswith("vocab.txt") and not caplog.records
