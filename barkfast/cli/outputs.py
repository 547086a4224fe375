"""Outputs for the sound of a command: a file, a pipe, a player."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from barkfast.audio import stream_header, to_pcm16, writing_audio
from barkfast.cli.process import CLOSED
from barkfast.errors import InputError

Write = Callable[[np.ndarray], None]

# Programs that play a wav as it comes through a pipe; the first one installed is used.
PLAYERS = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"),
    ("aplay", "-q", "-"),
    ("play", "-q", "-t", "wav", "-"),
)


def find_player(command: str | None) -> list[str]:
    """The command line of a player. Raises: InputError if there is none."""
    if command is None:
        for player in PLAYERS:
            if shutil.which(player[0]):
                return list(player)
        names = ", ".join(player[0] for player in PLAYERS)
        raise InputError(f"--play: none of {names} is installed; name a program with --player, or use --stream")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--player is {command!r}: {error}; expected a program that plays a wav") from error
    if not words or not shutil.which(words[0]):
        raise InputError(f"--player is {command!r}, which is no program here; expected one that plays a wav it is sent")
    return words


def check_pipe() -> None:
    """Raise InputError unless standard output can take sound."""
    if "stdout" in CLOSED:
        raise InputError("--stream writes sound to standard output, which is closed; write a file with -o FILE.wav")
    if sys.stdout.isatty():
        raise InputError("--stream writes sound, and standard output is a terminal; pipe it somewhere, or use --play")


@contextmanager
def to_file(path: str, sample_rate: int, subtype: str | None) -> Iterator[Write]:
    """Write samples to an audio file, atomically."""
    with writing_audio(path, sample_rate, subtype=subtype) as write:
        yield write


@contextmanager
def to_pipe(sample_rate: int, raw: bool) -> Iterator[Write]:
    """Write samples to standard output, as 16-bit wav of unknown length, or without its header if `raw`."""
    out = sys.stdout.buffer
    if not raw:
        out.write(stream_header(sample_rate))

    def write(samples: np.ndarray) -> None:
        out.write(to_pcm16(samples))
        # Otherwise a piece would wait in the buffer.
        out.flush()

    yield write


@contextmanager
def to_player(command: list[str], sample_rate: int) -> Iterator[Write]:
    """Send samples to a player; wait until it has played them."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as player:
        pipe = player.stdin
        assert pipe is not None

        def write(samples: np.ndarray) -> None:
            send(to_pcm16(samples))

        def send(data: bytes) -> None:
            try:
                pipe.write(data)
                pipe.flush()
            except BrokenPipeError as error:
                raise InputError(f"the player {command[0]} ended before the sound did; try another --player") from error

        try:
            send(stream_header(sample_rate))
            yield write
        except BaseException:
            # Also for Ctrl-C: the player would go on with what it has.
            player.kill()
            raise
        finally:
            # Its buffer may hold data that a player did not read before it ended.
            with suppress(BrokenPipeError):
                pipe.close()
