"""How a command ends: its exit status tells the truth, and errors are one line on stderr."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from barkfast.errors import BarkfastError

INTERRUPTED = 130


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace | int:
    """The arguments, or the exit status where argparse has said all there is to say (usage, --help)."""
    try:
        return parser.parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2


def report(program: str, work: Callable[[], int]) -> int:
    """Run `work` and return its exit status; 1 for errors made by values and files, 130 for Ctrl-C.

    Anything else is a bug, and keeps its traceback.
    """
    try:
        status = work()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f"{program}: interrupted, nothing half-written was left", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`head`, say) has gone: not worth a word, and Python must not flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (BarkfastError, OSError) as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
