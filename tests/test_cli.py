"""The command line: the exit status is right, errors are one line, and nothing on disk is lost."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import barkfast.api
from barkfast import Bark, Generation
from barkfast.__main__ import main as reference_main
from barkfast.cli import main
from barkfast.weights import Checkpoint

FRAMES = 30


def make_generation(peak: float = 0.5) -> Generation:
    audio = (peak * np.sin(np.arange(FRAMES * 320) / 10)).astype(np.float32)
    fine = np.ones((8, FRAMES), dtype=np.int32)
    timings = {"semantic": 0.1, "coarse": 0.2, "fine": 0.05, "codec": 0.05}
    return Generation(audio, 24_000, np.ones(20, dtype=np.int64), fine[:2], fine, timings)


def small_voice(**changes) -> dict[str, np.ndarray]:
    """A voice that the demo model accepts."""
    return make_generation().prompt | changes


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with the demo model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BARKFAST_MODEL", "random:demo")
    barkfast.generation.forget_default_bark()
    yield tmp_path
    barkfast.generation.forget_default_bark()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Replace loading and generating, to test the command line alone; collect the arguments."""
    collected: list[dict] = []

    def generate(self, text, voice=None, **options):
        collected.append({"text": text, "voice": voice, **options})
        return make_generation()

    monkeypatch.setattr(Bark, "load", lambda self: None)
    monkeypatch.setattr(Bark, "generate", generate)
    return collected


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a network fails the test."""

    def refuse(self, *args):
        pytest.fail("a model was loaded before the arguments were checked")

    monkeypatch.setattr(Checkpoint, "stage", refuse)
    monkeypatch.setattr(Checkpoint, "codec", refuse)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_say_writes_the_audio_and_says_how_to_repeat_it(calls, capsys: pytest.CaptureFixture):
    assert main(["say", " Hello \n there ", "-o", "out.wav", "--model", "random:demo"]) == 0
    info = soundfile.info("out.wav")
    assert (info.samplerate, info.frames, info.subtype) == (24_000, FRAMES * 320, "PCM_16")
    printed = capsys.readouterr().out
    (call,) = calls
    assert call["text"] == "Hello there"
    for said in ("out.wav: 0.40 s of audio", f"seed {call['seed']}", "semantic", "coarse", "fine", "codec"):
        assert said in printed
    assert "real-time factor 1.00" in printed
    assert 0 <= call["seed"] < 2**31


def test_say_passes_every_option_on(calls, capsys: pytest.CaptureFixture):
    np.savez("me.npz", **small_voice())
    options = "--voice me.npz --seed 7 --text-temp 0.1 --waveform-temp 0.2 --fine-temp 0 --top-k 5 --top-p 0.9"
    options += " --max-duration 2.5 --overflow error --float --save-voice said.npz --quiet"
    assert main(["say", "Hi", "-o", "out.wav", *options.split()]) == 0
    (call,) = calls
    voice = call.pop("voice")
    np.testing.assert_array_equal(voice["fine_prompt"], small_voice()["fine_prompt"])
    assert call == {
        **{"text": "Hi", "seed": 7, "text_temp": 0.1, "waveform_temp": 0.2, "fine_temp": 0.0, "top_k": 5},
        **{"top_p": 0.9, "max_duration_s": 2.5, "overflow": "error", "silent": True, "watermark": False},
    }
    assert soundfile.info("out.wav").subtype == "FLOAT"
    with np.load("said.npz") as said:
        np.testing.assert_array_equal(said["coarse_prompt"], make_generation().coarse)
    assert capsys.readouterr().out == ""


def test_say_passes_the_model_on(monkeypatch: pytest.MonkeyPatch):
    made = {}

    def note(self, model=None, **options):
        made.update(options, model=model)
        raise barkfast.InputError("seen enough")

    monkeypatch.setattr(Bark, "__init__", note)
    options = ["--model", "random:nano", "--device", "cpu", "--dtype", "bf16", "--engine", "torch", "--small"]
    assert main(["say", "Hi", "-o", "out.wav", *options]) == 1
    assert made == {"model": "random:nano", "device": "cpu", "dtype": "bf16", "engine": "torch", "small": True}


def test_say_reads_standard_input(calls, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("From a\npipe. ♪\n"))
    assert main(["say", "-", "-o", "out.flac"]) == 0
    assert calls[0]["text"] == "From a pipe. ♪"
    assert soundfile.info("out.flac").format == "FLAC"


def test_say_refuses_standard_input_that_is_no_text(no_model, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert main(["say", "-", "-o", "out.wav"]) == 1
    assert "not valid utf-8" in capsys.readouterr().err


BAD = {
    "empty text": (["", "-o", "new.wav"], "nothing to say"),
    "blank text": ([" \n ", "-o", "new.wav"], "nothing to say"),
    "broken text": (["a\udcffb", "-o", "new.wav"], "UTF-8"),
    "no suffix": (["Hi", "-o", "new"], "must end in one of .wav"),
    "wrong suffix": (["Hi", "-o", "new.txt"], "must end in one of .wav"),
    "missing folder": (["Hi", "-o", "gone/new.wav"], "not an existing folder"),
    "folder is a file": (["Hi", "-o", "old.wav/new.wav"], "not an existing folder"),
    "output is a folder": (["Hi", "-o", "folder.wav"], "is a folder"),
    "float mp3": (["Hi", "-o", "new.mp3", "--float"], "FLOAT"),
    "negative temperature": (["Hi", "-o", "old.wav", "--text-temp", "-1"], "--text-temp: text_temp is -1.0"),
    "nan temperature": (["Hi", "-o", "old.wav", "--waveform-temp", "nan"], "--waveform-temp: waveform_temp is nan"),
    "infinite temperature": (["Hi", "-o", "old.wav", "--fine-temp", "inf"], "--fine-temp: fine_temp is inf"),
    "top_k 0": (["Hi", "-o", "old.wav", "--top-k", "0"], "top_k is 0"),
    "top_p 2": (["Hi", "-o", "old.wav", "--top-p", "2"], "top_p is 2.0"),
    "duration 0": (["Hi", "-o", "old.wav", "--max-duration", "0"], "--max-duration: max_duration_s is 0.0"),
    "duration nan": (["Hi", "-o", "old.wav", "--max-duration", "nan"], "--max-duration: max_duration_s is nan"),
    "too small a seed": (["Hi", "-o", "old.wav", "--seed", str(-(2**63) - 1)], "--seed: seed is -9"),
    "large seed": (["Hi", "-o", "old.wav", "--seed", str(2**64)], "--seed: seed is 1"),
    "empty voice": (["Hi", "-o", "old.wav", "--voice", ""], "--voice is empty"),
    "unknown voice": (["Hi", "-o", "old.wav", "--voice", "v2/en_speaker_66"], "did you mean 'v2/en_speaker_6'?"),
    "missing voice file": (["Hi", "-o", "old.wav", "--voice", "gone.npz"], "gone.npz does not exist"),
    "voice without a key": (["Hi", "-o", "old.wav", "--voice", "part.npz"], "part.npz has no coarse_prompt"),
    "voice of floats": (["Hi", "-o", "old.wav", "--voice", "float.npz"], "float.npz: semantic_prompt is float64"),
    "voice of wrong shape": (["Hi", "-o", "old.wav", "--voice", "shape.npz"], "shape.npz: fine_prompt has shape"),
    "voice out of range": (["Hi", "-o", "old.wav", "--voice", "range.npz"], "range.npz: semantic_prompt holds"),
    "voice of wrong ratio": (["Hi", "-o", "old.wav", "--voice", "ratio.npz"], "ratio.npz: coarse_prompt has 60 frames"),
    "voice with a pickle": (["Hi", "-o", "old.wav", "--voice", "pickle.npz"], "pickle.npz: fine_prompt"),
    "truncated voice": (["Hi", "-o", "old.wav", "--voice", "cut.npz"], "cut.npz is not an .npz archive"),
    "voice to a wav": (["Hi", "-o", "old.wav", "--save-voice", "new.wav"], "--save-voice: cannot save"),
    "voice to nowhere": (["Hi", "-o", "old.wav", "--save-voice", "gone/new.npz"], "--save-voice: cannot write"),
    "unknown model": (["Hi", "-o", "old.wav", "--model", "nonsense"], "unknown model 'nonsense'"),
    "no network": (["Hi", "-o", "old.wav", "--model", "suno/bark"], "HF_HUB_OFFLINE"),
    "unknown device": (["Hi", "-o", "old.wav", "--device", "abacus"], "device is 'abacus'"),
    "unknown dtype": (["Hi", "-o", "old.wav", "--dtype", "int3"], "dtype is 'int3'"),
    "unknown engine": (["Hi", "-o", "old.wav", "--engine", "steam"], "engine is 'steam'"),
}


@pytest.mark.parametrize("name", BAD)
def test_say_refuses_bad_input_before_any_model_is_loaded(work: Path, name: str, no_model, capsys):
    arguments, message = BAD[name]
    (work / "old.wav").write_bytes(b"precious")
    (work / "folder.wav").mkdir()
    np.savez("part.npz", semantic_prompt=small_voice()["semantic_prompt"])
    np.savez("float.npz", **small_voice(semantic_prompt=np.ones(20)))
    np.savez("shape.npz", **small_voice(fine_prompt=np.ones((7, 30), dtype=int)))
    np.savez("range.npz", **small_voice(semantic_prompt=np.full(20, 9_999)))
    np.savez("ratio.npz", **small_voice(coarse_prompt=np.ones((2, 60), dtype=int)))
    np.savez("pickle.npz", **small_voice(fine_prompt=np.array([{}], dtype=object)))
    (work / "cut.npz").write_bytes((work / "ratio.npz").read_bytes()[:-50])
    before = files_in(work)
    assert main(["say", "--model", "random:demo", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("barkfast: error: ") and printed.err.count("\n") == 1
    assert message in printed.err
    assert files_in(work) == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["sing"], ["say"], ["say", "Hi"], ["say", "Hi", "-o", "a.wav", "--seed", "x"], ["convert", "random:demo"]],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture):
    assert main(arguments) == 2
    assert "usage: barkfast" in capsys.readouterr().err


def test_help_and_version_exit_with_0(capsys: pytest.CaptureFixture):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"barkfast {barkfast.__version__}\n"
    for command in ([], ["say"], ["voices"], ["convert"], ["info"]):
        assert main([*command, "--help"]) == 0


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt, 130, "interrupted"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (barkfast.CheckpointError("keys\nare missing"), 1, "error: keys are missing"),
    ],
)
def test_a_failure_while_generating_leaves_no_file(work: Path, monkeypatch, capsys, calls, error, status, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(Bark, "generate", fail)
    (work / "old.wav").write_bytes(b"precious")
    for name in ("old.wav", "new.wav"):
        assert main(["say", "Hi", "-o", name, "--save-voice", "new.npz"]) == status
    assert message in capsys.readouterr().err
    assert files_in(work) == {"old.wav": b"precious"}


def test_ctrl_c_while_writing_leaves_the_old_file(work: Path, monkeypatch: pytest.MonkeyPatch, calls):
    def interrupt(*args):
        raise KeyboardInterrupt

    (work / "old.wav").write_bytes(b"precious")
    monkeypatch.setattr("os.replace", interrupt)
    assert main(["say", "Hi", "-o", "old.wav"]) == 130
    assert files_in(work) == {"old.wav": b"precious"}


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, calls):
    monkeypatch.setattr(Bark, "generate", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["say", "Hi", "-o", "new.wav"])


def test_voices_lists_names_and_places(work: Path, monkeypatch, capsys: pytest.CaptureFixture):
    np.savez(work / "me.npz", **small_voice())
    monkeypatch.setenv("BARKFAST_VOICES", str(work))
    assert main(["voices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == "me" and str(work) in line for line in lines)
    monkeypatch.delenv("BARKFAST_MODEL")
    assert main(["voices", "--json"]) == 0
    voices = json.loads(capsys.readouterr().out)
    assert str(work) in voices["me"] and {"announcer", "v2/zh_speaker_9"} <= voices.keys()


def test_voices_names_a_bad_folder(monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("BARKFAST_VOICES", "gone")
    assert main(["voices"]) == 1
    assert "BARKFAST_VOICES is 'gone'" in capsys.readouterr().err


def test_info_tells_what_is_here(work: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("BARKFAST_ENGINE", "torch")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert main(["info", "--json"]) == 0
    printed = capsys.readouterr().out
    facts = json.loads(printed)
    assert facts["versions"]["barkfast"] == barkfast.__version__
    assert facts["engines"]["torch"].startswith("yes") and ":" in facts["engines"]["cuda"]
    assert facts["found"]["model"] == "random:demo: made from seed 0"
    assert facts["found"]["tokenizer"].endswith("vocab.txt")
    assert "24000 Hz" in facts["found"]["codec"]
    assert (
        facts["environment"]["BARKFAST_ENGINE"] == "torch" and facts["environment"]["BARKFAST_MODEL"] == "random:demo"
    )
    assert "secret" not in printed
    assert main(["info"]) == 0
    assert "random:demo: made from seed 0" in capsys.readouterr().out


def test_info_holds_what_a_bug_report_needs(monkeypatch, capsys: pytest.CaptureFixture):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert all(isinstance(line, str) for section in facts.values() for line in section.values())
    assert {"sources", "python", "platform", "torch", "triton", "transformers"} <= facts["versions"].keys()
    assert "digest " in facts["versions"]["sources"]
    cpu = facts["devices"]["cpu"]
    for fact in ("logical cores", "threads", "GiB free", "caches ", "instructions ", "governor ", "load "):
        assert fact in cpu
    assert facts["engines"].keys() == {"torch", "cpu", "cuda", "native module"}
    assert all(line.startswith(("yes: ", "no: ")) for line in facts["engines"].values())
    assert facts["chosen"].keys() == {"device", "engine", "dtype", "fallback"}
    assert facts["chosen"]["engine"] in facts["engines"] and facts["chosen"]["dtype"] != "auto"


def test_info_names_a_setting_that_cannot_be_chosen(monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("BARKFAST_DEVICE", "cpu")
    monkeypatch.setenv("BARKFAST_ENGINE", "abacus")
    assert main(["info", "--json"]) == 0
    chosen = json.loads(capsys.readouterr().out)["chosen"]
    assert chosen["device"] == "cpu" and chosen["engine"].startswith("none: engine is 'abacus'")
    assert "dtype" not in chosen


def test_info_says_what_is_missing_and_where_it_looked(work: Path, monkeypatch, capsys: pytest.CaptureFixture):
    from huggingface_hub import constants

    monkeypatch.delenv("BARKFAST_MODEL")
    monkeypatch.setenv("XDG_CACHE_HOME", str(work / "cache"))
    # Even where the network could be used, info does not.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("info used the network"))
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert "not on this machine" in found["model"] and str(work / "cache" / "suno" / "bark_v0") in found["model"]
    assert constants.HF_HUB_OFFLINE is False


def test_convert_writes_a_folder_that_opens(work: Path, capsys: pytest.CaptureFixture):
    assert main(["convert", "random:demo", "slim", "--dtype", "bf16"]) == 0
    assert "slim: random:demo as bf16" in capsys.readouterr().out
    assert main(["info", "--model", "slim", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert found["model"] == "slim: slim"
    assert found["tokenizer"].startswith("slim")
    before = files_in(work)
    assert main(["convert", "random:demo", "slim"]) == 1
    assert main(["convert", "random:demo", "other", "--dtype", "int3"]) == 1
    assert "int3" in capsys.readouterr().err
    assert files_in(work) == before


@pytest.mark.parametrize(
    ("switches", "silent", "full"),
    [
        ([], False, False),
        (["--silent"], True, False),
        (["--silent", "True", "--output_full", "False"], True, False),
        (["--silent", "False", "--output_full", "true"], False, True),
        (["--output_full"], False, True),
    ],
)
def test_the_flags_of_the_reference(work: Path, monkeypatch, capsys, switches: list[str], silent: bool, full: bool):
    calls = []

    def generate(*args, **kwargs):
        calls.append(args)
        return make_generation(peak=1.5).prompt, make_generation(peak=1.5).audio

    monkeypatch.setattr("barkfast.api.generate_audio", generate)
    arguments = ["--text", "Hi", "--output_dir", "made/here", "--history_prompt", "announcer", "--text_temp", "0.6"]
    assert reference_main([*arguments, *switches]) == 0
    assert calls == [("Hi", "announcer", 0.6, 0.7, silent)]
    samples, _ = soundfile.read("made/here/bark_generation.wav", dtype="float32")
    np.testing.assert_array_equal(samples, make_generation(peak=1.5).audio)
    assert soundfile.info("made/here/bark_generation.wav").subtype == "FLOAT"
    assert (work / "made/here/bark_generation.npz").exists() == full
    assert "Done! Output audio file is saved at: 'made/here/bark_generation.wav'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "--text"),
        (["--text", "Hi", "--silent", "perhaps"], 2, "neither True nor False"),
        (["--text", " "], 1, "nothing to say"),
        (["--text", "Hi", "--output_filename", "a.txt"], 1, "must end in"),
        (["--text", "Hi", "--output_dir", "old.wav"], 1, "old.wav"),
        (["--text", "Hi", "--history_prompt", "gone.npz"], 1, "gone.npz does not exist"),
        (["--text", "Hi", "--history_prompt", "nobody"], 1, "'nobody' is unknown"),
        (["--text", "Hi", "--history_prompt", ""], 1, "--history_prompt is empty"),
        (["--text", "Hi", "--text_temp", "-1"], 1, "--text_temp: text_temp is -1.0"),
        (
            ["--text", "Hi", "--output_filename", "me.wav", "--history_prompt", "me.npz", "--output_full"],
            *(1, "would overwrite the history prompt"),
        ),
    ],
)
def test_the_flags_of_the_reference_with_bad_input(work: Path, no_model, capsys, arguments, status, message):
    (work / "old.wav").write_bytes(b"precious")
    np.savez("me.npz", **small_voice())
    before = files_in(work)
    assert reference_main(arguments) == status
    assert message in capsys.readouterr().err
    assert files_in(work) == before


def test_ctrl_c_with_the_flags_of_the_reference(work: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("barkfast.api.generate_audio", interrupt)
    assert reference_main(["--text", "Hi"]) == 130
    assert files_in(work) == {}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python as a user would, on one thread."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=120)


def test_the_demo_model_speaks_from_a_real_shell_and_repeats_itself():
    command = "import sys; from barkfast.cli import main; sys.exit(main())"
    options = ("--model", "random:demo", "--seed", "3", "--max-duration", "0.3", "--float", "--save-voice", "said.npz")
    said = run("-c", command, "say", "Hello!", "-o", "said.wav", *options)
    assert said.returncode == 0, said.stderr
    assert "seed 3" in said.stdout and "real-time factor" in said.stdout
    first, rate = soundfile.read("said.wav", dtype="float32")
    assert rate == 24_000 and 0.1 < len(first) / rate < 0.5
    assert main(["say", "Hello!", "-o", "again.wav", *options[:-2], "--quiet"]) == 0
    np.testing.assert_array_equal(soundfile.read("again.wav", dtype="float32")[0], first)
    # The saved clip serves as a voice.
    assert main(["say", "Hi", "-o", "next.ogg", *options[:-3], "--voice", "said.npz", "--quiet"]) == 0
    assert soundfile.info("next.ogg").samplerate == 24_000


def test_the_module_runs_from_a_real_shell_and_tells_the_truth(work: Path):
    failed = run("-m", "barkfast", "--text", "Hi", "--history_prompt", "gone.npz", "--output_filename", "out.wav")
    assert failed.returncode == 1
    assert failed.stderr.startswith("python -m barkfast: error: ") and "Traceback" not in failed.stderr
    assert files_in(work) == {}
