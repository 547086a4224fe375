"""`barkfast say` for long texts, dialogues, pipes and players."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import barkfast.api
from barkfast import Bark, Generation
from barkfast.audio import stream_header, to_pcm16, writing_audio
from barkfast.cli import main
from barkfast.cli.long import showing_progress
from barkfast.engine.segments import Piece
from barkfast.errors import InputError
from barkfast.weights import Checkpoint

RATE = 24_000
BOOK = "Chapter one.\n\nIt rained all day. We stayed at home.\n\nThe end."
PLAY = "# A play.\nALICE: Who is there?\nBOB: It is me.\n"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a book and a play, and the demo model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BARKFAST_MODEL", "random:demo")
    barkfast.generation.forget_default_bark()
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8")
    (tmp_path / "play.txt").write_text(PLAY, encoding="utf-8")
    yield tmp_path
    barkfast.generation.forget_default_bark()


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a network fails the test."""

    def refuse(self, *args):
        pytest.fail("a model was loaded before the arguments were checked")

    monkeypatch.setattr(Checkpoint, "stage", refuse)
    monkeypatch.setattr(Checkpoint, "codec", refuse)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Replace loading and speaking; collect the texts and their options."""
    collected: list[dict] = []

    def speak(what):
        def stand_in(bark, text, voice, *, on_piece, **options):
            said = text if isinstance(text, str | list) else "".join(text)
            collected.append({"what": what, "text": said, "voice": voice, **options})
            for number in range(3):
                on_piece(Piece(number, f"piece {number}", 0.1))
                yield np.full(2400, 0.25, dtype=np.float32)

        return stand_in

    monkeypatch.setattr(Bark, "load", lambda self: None)
    monkeypatch.setattr(Bark, "generate_long", speak("long"))
    monkeypatch.setattr(Bark, "stream", speak("live"))
    monkeypatch.setattr(Bark, "generate_script", speak("script"))
    return collected


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_book_becomes_a_file(calls, capsys: pytest.CaptureFixture):
    assert main(["say", "--file", "book.txt", "-o", "book.flac", "--voice", "v2/en_speaker_6"]) == 0
    info = soundfile.info("book.flac")
    assert (info.samplerate, info.frames, info.format) == (RATE, 7200, "FLAC")
    (call,) = calls
    assert (call["what"], call["text"], call["voice"]) == ("long", BOOK, "v2/en_speaker_6")
    assert call["trim"] is True and call["at_once"] == 8 and call["chained"] is False
    printed = capsys.readouterr().out
    for said in ("book.flac: 0.30 s of audio in 3 pieces", f"seed {call['seed']}", "first sound", "real-time factor"):
        assert said in printed


def test_every_option_is_passed_on(calls, capsys: pytest.CaptureFixture):
    options = "--seed 7 --text-temp 0.1 --waveform-temp 0.2 --fine-temp 0 --top-k 5 --top-p 0.9 --max-duration 2.5"
    options += " --chained --language de --at-once 3 --no-trim --float --quiet"
    assert main(["say", "--file", "book.txt", "-o", "book.wav", *options.split()]) == 0
    assert calls == [
        {
            **{"what": "long", "text": BOOK, "voice": None, "chained": True, "language": "de", "seed": 7},
            **{"trim": False, "at_once": 3, "text_temp": 0.1, "waveform_temp": 0.2, "fine_temp": 0.0},
            **{"top_k": 5, "top_p": 0.9, "max_duration_s": 2.5, "watermark": False},
        }
    ]
    assert soundfile.info("book.wav").subtype == "FLOAT"
    assert capsys.readouterr().out == ""


MARKDOWN = "# Chapter *one*\n\nSee [a page][p], [1] and [laughs].\n\n```\ncode\n```\n\n[p]: https://example.com\n"
READ = "Chapter one.\n\nSee a page, [1] and [laughs]."


def test_markdown_is_read_by_name_or_option(calls, work: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("book.md", "BOOK.Markdown", "other.txt"):
        (work / name).write_text(MARKDOWN, encoding="utf-8")
    for arguments, expected in (
        (["--file", "book.md"], READ),
        (["--file", "BOOK.Markdown", "--mode", "exact", "--stream"], READ),
        (["--file", "book.md", "--markup", "plain"], MARKDOWN),
        (["--file", "other.txt"], MARKDOWN),
        (["--file", "other.txt", "--markup", "markdown"], READ),
        ([MARKDOWN, "--overflow", "split", "--markup", "markdown"], READ),
        (["--file", "-", "--markup", "markdown"], READ.replace("a page", "[a page][p]")),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(MARKDOWN))
        out = [] if "--stream" in arguments else ["-o", "out.wav"]
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO()))
        assert main(["say", *arguments, *out]) == 0
        assert calls.pop()["text"] == expected, arguments
    (work / "play.md").write_text("ALICE: *Who* is [there](x)?\n", encoding="utf-8")
    assert main(["say", "--script", "play.md", "-o", "out.wav", "--cast", "ALICE=", "--markup", "markdown"]) == 0
    assert calls.pop()["text"] == [("ALICE", "Who is there?")]


def test_markdown_in_a_short_text(monkeypatch: pytest.MonkeyPatch):
    said = []

    def generate(self, text, *args, **options):
        said.append(text)
        raise InputError("heard enough")

    monkeypatch.setattr(Bark, "load", lambda self: None)
    monkeypatch.setattr(Bark, "generate", generate)
    for options in ([], ["--markup", "markdown"]):
        assert main(["say", "# A *b*\n\nc", "-o", "out.wav", *options]) == 1
    assert said == ["# A *b* c", "A b. c"]


def test_markdown_without_text_is_refused_before_a_model(no_model, work: Path, capsys: pytest.CaptureFixture):
    (work / "code.md").write_text("```\ncode\n```\n", encoding="utf-8")
    assert main(["say", "--file", "code.md", "-o", "out.wav"]) == 1
    assert "code.md: nothing to say" in capsys.readouterr().err


def test_a_dialogue_has_a_cast(calls):
    cast = ["--cast", "ALICE=v2/en_speaker_1", "--cast", "BOB="]
    assert main(["say", "--script", "play.txt", "-o", "play.ogg", *cast]) == 0
    (call,) = calls
    assert call["what"] == "script"
    assert call["text"] == [("ALICE", "Who is there?"), ("BOB", "It is me.")]
    assert call["voice"] == {"ALICE": "v2/en_speaker_1", "BOB": None}


def test_a_text_given_here_can_be_long_too(calls, monkeypatch: pytest.MonkeyPatch):
    assert main(["say", "Hello.\n\nBye.", "-o", "out.wav", "--overflow", "split"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("From\na pipe."))
    assert main(["say", "-", "-o", "out.wav", "--overflow", "split"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe."))
    assert main(["say", "--file", "-", "-o", "out.wav"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(PLAY))
    assert main(["say", "--script", "-", "-o", "out.wav", "--cast", "ALICE=", "--cast", "BOB="]) == 0
    assert [call["text"] for call in calls[:3]] == ["Hello.\n\nBye.", "From\na pipe.", "From a pipe."]
    assert len(calls[3]["text"]) == 2


def test_a_stream_is_a_wav_of_unknown_length(calls, capsysbinary: pytest.CaptureFixture):
    assert main(["say", "Hello.", "--stream"]) == 0
    printed = capsysbinary.readouterr()
    assert printed.out[:44] == stream_header(RATE)
    assert struct.unpack("<I", printed.out[40:44]) == (0xFFFFFFFF,)
    samples = np.frombuffer(printed.out[44:], dtype="<i2")
    assert len(samples) == 7200 and set(samples) == {round(0.25 * 32767)}
    # Messages about it go to standard error.
    assert b"sound: 0.30 s of audio in 3 pieces" in printed.err
    assert calls[0]["at_once"] == 2
    assert main(["say", "Hello.", "--stream", "--raw", "--quiet"]) == 0
    assert capsysbinary.readouterr().out == samples.tobytes()


def test_a_stream_within_sentences_has_a_mode(calls, work: Path):
    command = player(work, "import sys; sys.stdin.buffer.read()")
    play = ["--play", "--player", command, "--quiet"]
    assert main(["say", "Hello.", *play, "--mode", "low_latency", "--chained", "--seed", "7"]) == 0
    assert main(["say", "--file", "book.txt", *play, "--mode", "exact"]) == 0
    assert [(call["what"], call["text"], call["mode"]) for call in calls] == [
        ("live", "Hello.", "low_latency"),
        ("live", BOOK, "exact"),
    ]
    assert not {"trim", "at_once"} & calls[0].keys()
    assert (calls[0]["chained"], calls[0]["seed"]) == (True, 7)


def test_a_stream_is_not_written_to_a_terminal(no_model, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["say", "Hello.", "--stream"]) == 1
    assert "is a terminal" in capsys.readouterr().err


def player(work: Path, code: str) -> str:
    """Write a program and return the command for --player."""
    path = work / "player.py"
    path.write_text(code, encoding="utf-8")
    return f"{sys.executable} {path}"


def test_a_player_gets_the_sound(work: Path, calls):
    command = player(work, "import sys; open('played.wav', 'wb').write(sys.stdin.buffer.read())")
    assert main(["say", "Hello.", "--play", "--player", command]) == 0
    played = (work / "played.wav").read_bytes()
    assert played[:44] == stream_header(RATE) and len(played) == 44 + 2 * 7200


def test_a_player_that_ends_early_is_named(work: Path, calls, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("barkfast.cli.outputs.to_pcm16", lambda samples: bytes(1 << 20))
    assert main(["say", "Hello.", "--play", "--player", player(work, "raise SystemExit(0)")]) == 1
    assert "ended before the sound did" in capsys.readouterr().err


def test_players_are_looked_for(calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(["say", "Hello.", "--play"]) == 1
    assert "none of ffplay, aplay, play is installed" in capsys.readouterr().err


BAD = {
    "no file": (["--file", "gone.txt", "-o", "new.wav"], "gone.txt"),
    "empty name": (["--file", "", "-o", "new.wav"], "path is ''"),
    "empty file": (["--file", "empty.txt", "-o", "new.wav"], "empty.txt is empty"),
    "no text": (["--file", "latin.txt", "-o", "new.wav"], "latin.txt is not valid utf-8"),
    "folder": (["--file", ".", "-o", "new.wav"], "directory"),
    "empty text": (["", "--stream"], "nothing to say"),
    "no letters": (["--file", "book.txt", "-o", "new.txt"], "must end in one of .wav"),
    "language": (["--file", "book.txt", "-o", "new.wav", "--language", "xx"], "language is 'xx'"),
    "at once": (["--file", "book.txt", "-o", "new.wav", "--at-once", "0"], "--at-once is 0"),
    "voice for a script": (["--script", "play.txt", "-o", "new.wav", "--voice", "a"], "--cast NAME=VOICE"),
    "cast for a book": (["--file", "book.txt", "-o", "new.wav", "--cast", "A="], "--cast gives the speakers"),
    "cast without a voice": (["--script", "play.txt", "-o", "new.wav", "--cast", "ALICE"], "--cast is 'ALICE'"),
    "two voices": (
        ["--script", "play.txt", "-o", "new.wav", "--cast", "A=", "--cast", "A="],
        "--cast: A has two voices",
    ),
    "nobody": (["--script", "play.txt", "-o", "new.wav"], "line 2: unknown speaker 'ALICE'"),
    "unknown speaker": (["--script", "play.txt", "-o", "new.wav", "--cast", "ALICE="], "line 3: unknown speaker 'BOB'"),
    "no speaker": (["--script", "book.txt", "-o", "new.wav", "--cast", "A="], "line 1: 'Chapter one.' has no speaker"),
    "voice file": (["--script", "play.txt", "-o", "new.wav", "--cast", "A=gone.npz"], "gone.npz does not exist"),
    "voice name": (
        ["--script", "play.txt", "-o", "new.wav", "--cast", "ALICE=", "--cast", "BOB=v2/en_speaker_66"],
        "the voice of BOB",
    ),
    "save a voice": (["--file", "book.txt", "-o", "new.wav", "--save-voice", "new.npz"], "--save-voice"),
    "float pipe": (["Hi.", "--stream", "--float"], "--float"),
    "raw file": (["--file", "book.txt", "-o", "new.wav", "--raw"], "--raw goes with --stream"),
    "mode of a file": (["--file", "book.txt", "-o", "new.wav", "--mode", "exact"], "--mode goes with --stream"),
    "mode of a short text": (["Hi.", "-o", "new.wav", "--mode", "exact"], "--mode goes with --file"),
    "mode of a script": (["--script", "play.txt", "--stream", "--mode", "exact"], "--mode goes with one voice"),
    "mode and trim": (["Hi.", "--stream", "--mode", "exact", "--trim"], "--mode goes with one voice"),
    "mode and at once": (["Hi.", "--stream", "--mode", "exact", "--at-once", "2"], "--mode goes with one voice"),
    "player of a file": (["--file", "book.txt", "-o", "new.wav", "--player", "cat"], "--player goes with --play"),
    "no player": (["Hi.", "--play", "--player", "no-such-program"], "no program here"),
    "half a player": (["Hi.", "--play", "--player", "'"], "--player is"),
    "short and chained": (["Hi.", "-o", "new.wav", "--chained"], "--chained goes with --file"),
    "short and at once": (["Hi.", "-o", "new.wav", "--at-once", "2"], "--at-once goes with --file"),
    "negative temperature": (["--file", "book.txt", "-o", "new.wav", "--text-temp", "-1"], "text_temp is -1.0"),
    "unknown model": (["--file", "book.txt", "-o", "new.wav", "--model", "nonsense"], "unknown model 'nonsense'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_any_model_is_loaded(work: Path, name: str, no_model, capsys):
    arguments, message = BAD[name]
    (work / "empty.txt").write_text(" \n", encoding="utf-8")
    (work / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    before = files_in(work)
    assert main(["say", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("barkfast: error: ") and printed.err.count("\n") == 1
    assert message in printed.err
    assert files_in(work) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--file", "book.txt"],
        ["Hi.", "--file", "book.txt", "-o", "a.wav"],
        ["--file", "book.txt", "--script", "play.txt", "-o", "a.wav"],
        ["Hi.", "-o", "a.wav", "--stream"],
        ["Hi.", "--stream", "--play"],
        ["-o", "a.wav"],
    ],
)
def test_one_source_and_one_target(arguments: list[str], capsys: pytest.CaptureFixture):
    assert main(["say", *arguments]) == 2
    assert "usage: barkfast say" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("no more")])
def test_a_failure_on_the_way_leaves_no_file(work: Path, monkeypatch, error):
    def fail(bark, text, voice, **options):
        yield np.zeros(2400, dtype=np.float32)
        raise error

    monkeypatch.setattr(Bark, "load", lambda self: None)
    monkeypatch.setattr(Bark, "generate_long", fail)
    (work / "old.wav").write_bytes(b"precious")
    before = files_in(work)
    for name in ("old.wav", "new.wav"):
        assert main(["say", "--file", "book.txt", "-o", name]) == (130 if error is KeyboardInterrupt else 1)
    assert files_in(work) == before


def test_a_short_text_can_be_trimmed(monkeypatch: pytest.MonkeyPatch):
    def generate(self, text, voice=None, **options):
        quiet = np.zeros(RATE, dtype=np.float32)
        sound = np.full(RATE, 0.5, dtype=np.float32)
        sound[::2] = -0.5
        fine = np.ones((8, 150), dtype=np.int32)
        return Generation(np.concatenate((quiet, sound, quiet)), RATE, np.ones(100, dtype=np.int64), fine[:2], fine)

    monkeypatch.setattr(Bark, "load", lambda self: None)
    monkeypatch.setattr(Bark, "generate", generate)
    lengths = []
    for option in ([], ["--no-trim"], ["--trim"]):
        assert main(["say", "Hi.", "-o", "out.wav", *option, "--quiet"]) == 0
        lengths.append(soundfile.info("out.wav").frames / RATE)
    assert lengths[:2] == [3.0, 3.0] and lengths[2] == pytest.approx(1.11, abs=0.02)


def test_progress_is_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    with showing_progress(10, False) as tell:
        tell(Piece(0, "Hello", 1.0))
    assert capsys.readouterr().err == ""
    for total in (10, None):
        with showing_progress(total, True) as tell:
            tell(Piece(0, "Hello", 1.0))
            tell(Piece(1, "there", 1.5))
        printed = capsys.readouterr().err
        assert "2 pieces, 2 s of sound" in printed and "left" in printed
        assert ("100 %" in printed) == (total is not None)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", None), ("a.wav", "FLOAT"), ("a.flac", None), ("a.ogg", None)])
def test_a_file_is_written_piece_by_piece(name: str, subtype: str | None):
    pieces = [np.sin(np.arange(n) / 20).astype(np.float32) * 0.9 for n in (100_000, 0, 7, 30_000)]
    with writing_audio(name, RATE, subtype=subtype) as write:
        for piece in pieces:
            write(piece)
        assert not Path(name).exists()
    read, rate = soundfile.read(name, dtype="float32")
    assert rate == RATE and len(read) == 130_007
    if name != "a.ogg":
        np.testing.assert_allclose(read, np.concatenate(pieces), atol=1e-4)


def test_peaks_beyond_what_a_file_holds_turn_the_sound_down(caplog):
    pieces = [np.full(100, level, dtype=np.float32) for level in (0.5, 2.0, 0.5)]
    for subtype, expected in ((None, [0.5, 1.0, 0.25]), ("FLOAT", [0.5, 2.0, 0.5])):
        with writing_audio("a.wav", RATE, subtype=subtype) as write:
            for piece in pieces:
                write(piece)
        read = soundfile.read("a.wav", dtype="float32")[0]
        np.testing.assert_allclose(read[50::100], expected, atol=1e-3)
    assert caplog.text.count("peak at 2.000") == 1
    np.testing.assert_array_equal(np.frombuffer(to_pcm16(np.array([2.0, -2.0])), "<i2"), [32767, -32767])


def test_what_is_no_sound_is_not_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("barkfast.audio.WAV_BYTES", 1000)
    with pytest.raises(InputError, match="no more than 4 GiB"), writing_audio("a.wav", RATE) as write:
        write(np.zeros(501, dtype=np.float32))
    with pytest.raises(InputError, match="NaN"), writing_audio("a.wav", RATE) as write:
        write(np.full(5, np.nan, dtype=np.float32))
    assert not Path("a.wav").exists()


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run the command as a user would, on one thread."""
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    command = [sys.executable, "-c", "import sys; from barkfast.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, env=env, capture_output=True, timeout=300, **options)


def test_the_demo_model_reads_aloud_from_a_real_shell(work: Path):
    options = ("--model", "random:demo", "--seed", "3", "--max-duration", "0.3", "--no-trim")
    streamed = run("say", "--file", "-", "--stream", "--raw", *options, input=BOOK.encode())
    assert streamed.returncode == 0, streamed.stderr
    said = run("say", "--file", "book.txt", "-o", "book.wav", "--at-once", "2", *options)
    assert said.returncode == 0, said.stderr
    assert "seed 3" in said.stdout.decode()
    samples, rate = soundfile.read("book.wav", dtype="int16")
    assert rate == RATE and len(samples) > 0.2 * RATE
    # Streamed within sentences, each sentence has the same length.
    live = run("say", "--file", "book.txt", "--stream", "--raw", *options, "--mode", "low_latency")
    assert live.returncode == 0, live.stderr
    assert len(live.stdout) > 2 * 0.2 * RATE
    # The pipe gets the same samples as the file.
    np.testing.assert_allclose(np.frombuffer(streamed.stdout, "<i2").astype(int), samples.astype(int), atol=1)
    assert sorted(files_in(work)) == ["book.txt", "book.wav", "play.txt"]


def test_a_reader_that_goes_away_ends_the_work_quietly():
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    command = [sys.executable, "-c", "import sys; from barkfast.cli import main; sys.exit(main())"]
    command += ["say", "We stayed at home. " * 300, "--stream", "--model", "random:demo", "--max-duration", "0.3"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(100)[:4] == b"RIFF"
        process.stdout.close()
        assert process.wait(timeout=120) == 1
        assert process.stderr.read() == b""
