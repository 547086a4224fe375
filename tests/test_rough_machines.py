"""Processes without a home, without streams, on full disks, ended by signals, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from zygote import BROKEN_PIPE, ROOT, Zygote

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SAY = ("say", "Hello.", "-o", "out.wav", "--model", "demo", "--seed", "1", "--engine", "torch", "--max-duration", "0.3")
# Writes a warning to standard error: no model is named, and the real one is not available.
TALKATIVE = tuple(word for word in SAY if word not in ("--model", "demo"))
BOOK = "This is a sentence of a book. " * 50


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


def written(folder: Path) -> dict[str, str]:
    """What a command printed."""
    return {
        name: (folder / name).read_text(errors="surrogateescape") for name in ("1", "2") if (folder / name).exists()
    }


CLOSED = {
    "stdin": {0: None},
    "stdout": {1: None},
    "stderr": {2: None},
    "both": {1: None, 2: None},
    "all": {0: None, 1: None, 2: None},
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("which", CLOSED)
def test_closed_streams_change_nothing_else(zygote: Zygote, tmp_path: Path, which: str):
    real = which == "all"
    assert zygote.run(*SAY, "--save-voice", "voice.npz", cwd=tmp_path, fds=CLOSED[which], real=real) == 0
    assert soundfile.info(tmp_path / "out.wav").frames and (tmp_path / "voice.npz").exists()
    # Nothing that was printed got into a file.
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in "12") == ["out.wav", "voice.npz"]
    assert all("Traceback" not in text for text in written(tmp_path).values())


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    "argv",
    [
        ("info", "--model", "demo", "--json"),
        ("voices", "--model", "demo", "--json"),
        ("convert", "demo", "folder"),
        ("say", "--help"),
    ],
    ids=" ".join,
)
def test_every_command_works_without_streams(zygote: Zygote, tmp_path: Path, argv: tuple[str, ...]):
    assert zygote.run(*argv, cwd=tmp_path, fds=CLOSED["all"]) == 0


def test_errors_keep_their_status_without_streams(zygote: Zygote, tmp_path: Path):
    assert zygote.run("say", "Hello.", "-o", "no/out.wav", cwd=tmp_path, fds=CLOSED["all"]) == 1
    assert zygote.run("say", "--nonsense", cwd=tmp_path, fds=CLOSED["all"]) == 2
    assert zygote.run("say", "-", "-o", "out.wav", "--model", "demo", cwd=tmp_path, fds={0: None}) == 1
    assert "nothing to say" in written(tmp_path)["2"]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("argv", [("say", "Hi.", "--stream"), ("bench", "--json", "-", "--model", "random:nano")])
def test_what_only_goes_to_a_closed_stream_is_refused(zygote: Zygote, tmp_path: Path, argv: tuple[str, ...]):
    assert zygote.run(*argv, cwd=tmp_path, fds={1: None}) == 1
    assert "standard output" in written(tmp_path)["2"] and "closed" in written(tmp_path)["2"]


needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@needs_full
def test_a_full_disk_behind_the_streams(zygote: Zygote, tmp_path: Path):
    assert zygote.run(*SAY, cwd=tmp_path, fds={1: "/dev/full"}) == 1
    (line,) = written(tmp_path)["2"].splitlines()
    assert line.startswith("barkfast: error:") and "No space left" in line
    (tmp_path / "out.wav").unlink()
    # A failed write to standard error neither stops the command nor makes it fail.
    assert zygote.run(*TALKATIVE, cwd=tmp_path, fds={2: "/dev/full"}) == 0
    assert zygote.run(*SAY, cwd=tmp_path, fds={1: "/dev/full", 2: "/dev/full"}) == 1
    assert soundfile.info(tmp_path / "out.wav").frames


@pytest.mark.parametrize(("descriptor", "status"), [(1, 1), (2, 0)])
def test_a_reader_that_is_gone(zygote: Zygote, tmp_path: Path, descriptor: int, status: int):
    assert zygote.run(*TALKATIVE, cwd=tmp_path, fds={descriptor: BROKEN_PIPE}) == status
    assert soundfile.info(tmp_path / "out.wav").frames
    assert all("Traceback" not in text for text in written(tmp_path).values())


@pytest.mark.parametrize("source", [("Hello.",), ("--file", "book.txt")], ids=["whole", "piece by piece"])
def test_a_full_disk_is_an_error_that_names_the_path(zygote: Zygote, tmp_path: Path, source: tuple):
    (tmp_path / "book.txt").write_text("Hello.")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))"
    assert zygote.run("say", *source, *SAY[2:], cwd=tmp_path, prepare=limit) == 1
    (line,) = written(tmp_path)["2"].splitlines()
    assert line.startswith("barkfast: error: cannot write out.wav: File too large")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "book.txt"]


# STALL holds a command while it writes, and creates the file `ready`; WRITERS has the commands and where to hold them.
STALL = """
import importlib, pathlib, time
owner, name = {0!r}.rsplit(".", 1)
module, _, kind = owner.partition(":")
place = importlib.import_module(module)
place = getattr(place, kind) if kind else place
true = getattr(place, name)
def stall(*args, **options):
    result = true(*args, **options)
    # Once: what is in a buffer is written when the file is closed.
    if not pathlib.Path("ready").exists():
        pathlib.Path("ready").touch()
        time.sleep(60)
    return result
setattr(place, name, stall)
"""
WRITERS = {
    "sound": (SAY, "barkfast.files:_NewFile.write"),
    "long sound": (("say", "--file", "book.txt", *SAY[2:]), "barkfast.files:_NewFile.write"),
    "voice": ((*SAY, "--save-voice", "voice.npz"), "numpy.savez"),
    "model": (("convert", "demo", "folder"), "safetensors.torch.save_file"),
    "packed weights": (("say", "Hi.", "-o", "out.wav", "--model", "demo", "--engine", "cpu"), "os.fsync"),
}
NAMED = "import barkfast.files as files; files.os.path.exists = lambda path, exists=files.os.path.exists: "
NAMED += "path != '/proc/self/fd' and exists(path)\n"


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    ("writer", "number", "named"),
    [
        *(("sound", number, False) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGKILL)),
        *((writer, signal.SIGTERM, False) for writer in WRITERS),
        *((writer, signal.SIGTERM, True) for writer in ("sound", "long sound")),
    ],
)
def test_a_signal_leaves_nothing_half_written(
    zygote: Zygote, tmp_path: Path, writer: str, number: signal.Signals, named: bool
):
    from barkfast.native import load_native

    if writer == "packed weights" and load_native() is None:
        pytest.skip("the native module was not built")
    if number == signal.SIGKILL and (named or not has_unnamed_files(tmp_path)):
        pytest.skip("only a file without a name vanishes with a killed process")
    argv, held = WRITERS[writer]
    (tmp_path / "book.txt").write_text(BOOK)
    if "voice" not in writer:
        (tmp_path / "out.wav").write_bytes(b"precious")
    before = contents(tmp_path)
    env = {"BARKFAST_CACHE": str(tmp_path / "cache")}
    prepare = (NAMED if named else "") + STALL.format(held)
    child = zygote.start(*argv, cwd=tmp_path, env=env, prepare=prepare, real=writer == "packed weights")
    wait_for(tmp_path / "ready")
    os.kill(child, number)
    status = zygote.finish()
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    (tmp_path / "ready").unlink()
    if writer == "voice":
        # The sound was written before the voice, and is whole.
        (tmp_path / "out.wav").unlink()
    assert contents(tmp_path) == before
    if number != signal.SIGKILL:
        assert "nothing half-written was left" in written(tmp_path)["2"]


def has_unnamed_files(folder: Path) -> bool:
    from barkfast.files import _open_new

    descriptor, named = _open_new(folder / ".trial")
    os.close(descriptor)
    (folder / ".trial").unlink(missing_ok=True)
    return not named


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # The cache of known digests is a separate file, and whole.
    return {name: data for name, data in files.items() if name not in ("1", "2", "cache/hashes.json")}


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, "the command did not begin to write"
        time.sleep(0.01)


def test_signals_in_quick_succession_do_not_interrupt_the_cleaning_up(zygote: Zygote, tmp_path: Path):
    """As from a terminal that closes."""
    slow = "import shutil, time; remove = shutil.rmtree\ndef slow(*args, **options):\n    time.sleep(0.3)\n"
    slow += "    remove(*args, **options)\nshutil.rmtree = slow\n"
    argv, held = WRITERS["model"]
    child = zygote.start(*argv, cwd=tmp_path, prepare=slow + STALL.format(held))
    wait_for(tmp_path / "ready")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.kill(child, number)
        time.sleep(0.05)
    assert zygote.finish() in (128 + signal.SIGHUP, 128 + signal.SIGTERM)
    assert sorted(contents(tmp_path)) == ["ready"]


def test_nohup_is_obeyed(zygote: Zygote, tmp_path: Path):
    prepare = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    prepare += "import barkfast.bark as bark; load = bark.Bark.load\n"
    prepare += "bark.Bark.load = lambda self: (os.kill(os.getpid(), signal.SIGHUP), load(self))"
    assert zygote.run(*SAY, cwd=tmp_path, prepare=prepare) == 0


# Environment variables that name a user or a folder of theirs.
PERSONAL = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME")
NOBODY = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""


def python(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code as a user that the system does not know."""
    kept = {name: value for name, value in os.environ.items() if name not in PERSONAL}
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return subprocess.run(
        [sys.executable, "-c", NOBODY + code],
        cwd=cwd,
        env={**kept, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
    )


def test_without_a_home(tmp_path: Path):
    code = """
import json, os
from barkfast.cli import main
assert main(["info", "--model", "demo", "--json"]) == 0
assert main(["say", "Hi.", "-o", "out.wav", "--model", "demo", "--quiet", "--max-duration", "0.3"]) == 0
assert main(["say", "Hi.", "-o", "out.wav", "--quiet", "--max-duration", "0.3"]) == 0
from barkfast import generation
assert generation.CACHE_DIR == os.path.join("~", ".cache", "suno", "bark_v0")
import barkfast.runtime.cuda
assert not os.environ["TRITON_HOME"].startswith(os.getcwd()) and os.path.isdir(os.environ["TRITON_HOME"])
"""
    result = python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert "no home folder" in facts["found"]["packed weights"]
    assert "demo" in facts["found"]["demo voice"]
    # Nothing was cached, and above all not in a folder that is named `~`.
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_in_a_folder_that_was_deleted(tmp_path: Path):
    gone, out = tmp_path / "gone", tmp_path / "out.wav"
    gone.mkdir()
    code = f"""
import os
os.rmdir({str(gone)!r})
from barkfast.cli import main
say = ["say", "Hi.", "--model", "demo", "--quiet", "--max-duration", "0.3", "-o"]
print(main([*say, {str(out)!r}]), main([*say, "out.wav"]))
"""
    result = python(code, gone, HOME=str(tmp_path))
    assert result.stdout.split() == ["0", "1"], result.stderr
    assert result.stderr.startswith("barkfast: error: cannot write out.wav: ")
    assert soundfile.info(out).frames


def test_an_ascii_terminal_gets_every_text_and_json_stays_json(zygote: Zygote, tmp_path: Path):
    env = {"PYTHONIOENCODING": "ascii", "BARKFAST_VOICES": str(tmp_path / "v\u00f6ices")}
    (tmp_path / "v\u00f6ices").mkdir()
    (tmp_path / "v\u00f6ices" / "M\u00fcller\u2603.npz").touch()
    assert zygote.run("voices", "--model", "demo", cwd=tmp_path, env=env) == 0
    assert r"M\xfcller\u2603" in written(tmp_path)["1"]
    (tmp_path / "1").unlink()
    assert zygote.run("voices", "--model", "demo", "--json", cwd=tmp_path, env=env) == 0
    assert "M\u00fcller\u2603" in json.loads(written(tmp_path)["1"])


def test_names_of_any_bytes(zygote: Zygote, tmp_path: Path):
    """A name may have a line break in it, or bytes that are no text; messages stay one printable line."""
    for name in ("new\nline.wav", os.fsdecode(b"\xff\xfe.wav")):
        argv = [name if word == "out.wav" else word for word in SAY]
        assert zygote.run(*argv, cwd=tmp_path) == 0
        assert (tmp_path / name).read_bytes().startswith(b"RIFF")
        argv = [f"no/{name}" if word == "out.wav" else word for word in SAY]
        assert zygote.run(*argv, cwd=tmp_path) == 1
        (line,) = (tmp_path / "2").read_bytes().decode().splitlines()
        assert "not an existing folder" in line
        (tmp_path / "2").unlink()
