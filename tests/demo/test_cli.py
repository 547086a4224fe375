"""The demo voice from the shell: requested, or as a fallback for a model that is not available."""

from pathlib import Path

import pytest

from barkfast import Bark
from barkfast.cli import main
from barkfast.errors import MissingFileError

OPTIONS = ("--seed", "1", "--max-duration", "0.5", "--quiet")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; no model is set, cached or available online (the tests run offline)."""
    monkeypatch.delenv("BARKFAST_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_say_takes_it_where_there_is_no_other_and_says_so_in_one_line(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", "Hello.", "-o", "a.wav", *OPTIONS]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("demo voice", "suno/bark", "HF_HUB_OFFLINE", "hf download suno/bark", "--model"):
        assert part in line
    assert main(["say", "Hello.", "-o", "b.wav", "--model", "demo", *OPTIONS]) == 0
    assert capsys.readouterr().err == ""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: what was written is not read")
    one, other = (soundfile.read(name)[0] for name in ("a.wav", "b.wav"))
    assert len(one) and (one == other).all()


def test_long_texts_take_it_too(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("book.txt").write_text("One. Two.", encoding="utf-8")
    assert main(["say", "--file", "book.txt", "-o", "a.wav", *OPTIONS]) == 0
    assert capsys.readouterr().err.count("demo voice") == 1


def test_a_voice_of_sunos_does_not_fit_it(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "Hello.", "-o", "a.wav", "--voice", "v2/en_speaker_6", *OPTIONS]) == 1
    assert "demo has other tokens" in capsys.readouterr().err


def test_code_is_told_and_not_given_another_model(alone: Path) -> None:
    with pytest.raises(MissingFileError, match="try the built-in model 'demo'"):
        Bark().load()


def test_what_is_set_for_other_models_is_not_meant_for_it(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_TOKENIZER", "elsewhere")
    monkeypatch.setenv("BARKFAST_CODEC", "elsewhere")
    assert len(Bark("demo", device="cpu").generate("Hello.", seed=1, max_duration_s=0.5).audio)


def test_it_is_shown(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert "demo voice" in capsys.readouterr().out
    for options in ([], ["--model", "demo"]):
        assert main(["voices", *options]) == 0
        listed = capsys.readouterr().out
        assert all(f"{name} " in listed for name in ("calm", "plain", "lively"))
