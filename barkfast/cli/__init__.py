"""The `barkfast` command."""

import argparse
from collections.abc import Sequence

from barkfast.cli import bench, convert, detect, info, profile, say, serve, verify, voices
from barkfast.cli.process import parse, report


def build_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands; each one sets `run`, a function of its arguments."""
    import barkfast

    parser = argparse.ArgumentParser(prog="barkfast", description="Suno's Bark text-to-speech, made fast.")
    parser.add_argument("--version", action="version", version=f"barkfast {barkfast.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (say, serve, detect, voices, convert, bench, verify, profile, info):
        command.add_parser(commands)
    return parser


def cli() -> None:
    """The entry point of `bark.cli`: the flags of `python -m bark`."""
    import runpy

    runpy.run_module("barkfast", run_name="__main__")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 for an error (one line on stderr), 2 for usage, 130 for Ctrl-C."""
    args = parse(build_parser(), argv)
    return args if isinstance(args, int) else report("barkfast", lambda: args.run(args))
