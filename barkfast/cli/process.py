"""Start and end of a command: usable streams, cleanup on signals, correct exit status, errors as one line."""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from barkfast.errors import BarkfastError

INTERRUPTED = 130
# Signals that end a process silently unless caught: `kill`, a container that stops, a terminal that closes.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# A terminal that closes sends more than one signal, and none may interrupt the cleanup.
_GRACE_S = 5.0
# The standard streams that the process was started without.
CLOSED: set[str] = set()


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end; code that cleans up after Ctrl-C also cleans up after this."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.status = 128 + number


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace | int:
    """The arguments, or the exit status if argparse ends the command (usage, --help)."""
    _repair_streams()
    try:
        return parser.parse_args(argv)
    except SystemExit as end:
        return max(end.code if isinstance(end.code, int) else 2, _finish(sys.stdout))


def report(program: str, work: Callable[[], int]) -> int:
    """Run `work` and return its exit status; 1 for errors of values and files, 128 + N for signal N.

    Any other exception is a bug, and keeps its traceback.
    """
    try:
        with _stopping():
            status = work()
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        stopped = isinstance(stop, Stopped)
        note(f"{program}: {stop if stopped else 'interrupted'}, nothing half-written was left")
        status = stop.status if isinstance(stop, Stopped) else INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (for example `head`) has ended: print nothing.
        status = 1
    except (BarkfastError, OSError) as error:
        where = "standard output: " if _finish(sys.stdout) else ""
        note(f"{program}: error: {where}{' '.join(str(error).split())}")
        status = 1
    finally:
        _finish(sys.stdout)
        _finish(sys.stderr)
    return status


def note(line: str) -> None:
    """Print a line on standard error; if that fails, ignore it, so that the work goes on."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _finish(sys.stderr)


def _finish(stream: TextIO) -> int:
    """Flush a stream. If that fails, return 1, and discard its data, so that Python does not retry at exit."""
    try:
        stream.flush()
        return 0
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 1


@contextmanager
def _stopping() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise Stopped in the block, as Ctrl-C raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -_GRACE_S

    def stop(number: int, frame: Any) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= _GRACE_S:
            raise Stopped(number)

    # Ignored signals stay ignored, as `nohup` requires.
    caught = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _repair_streams() -> None:
    """Give a process that was started without standard streams (`>&-`, `2>&-`, `<&-`) empty ones.

    Otherwise the next file that is opened would get the descriptor of standard output, and receive what is printed.
    A character that the encoding of the streams lacks is printed as an escape sequence.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            CLOSED.add(name)
            _open_null(descriptor)
            stream = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
        if name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _open_null(descriptor: int) -> None:
    """Open the null device as `descriptor`, if that is free, for child processes too."""
    with suppress(OSError):
        os.fstat(descriptor)
        return
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)
