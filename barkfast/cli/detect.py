"""`barkfast detect`: whether sound files carry the mark of `say --watermark`."""

import argparse
from typing import Any

from barkfast.cli.process import note
from barkfast.errors import InputError

FOUND, NOTHING_FOUND, TROUBLE = 0, 1, 2


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "detect",
        help="tell whether sound files are watermarked",
        description="Print how sure the network is that a file is marked, from 0 to 1, for each one. Exit status as "
        "that of grep: 0 if any file is marked, 1 if none is, 2 if anything could not be read (docs/watermark.md).",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="wav, flac, ogg, opus or mp3")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each file."""
    from barkfast.watermark import MARKED, detect_file, require_watermark

    try:
        require_watermark()
    except InputError as error:
        note(f"barkfast: error: {error}")
        return TROUBLE
    status = NOTHING_FOUND
    for path in args.files:
        try:
            probability = detect_file(path)
        except InputError as error:
            note(f"barkfast: error: {error}")
            status = TROUBLE
            continue
        print(f"{probability:.3f}  {'marked' if probability >= MARKED else 'not marked':<10}  {path}")
        if probability >= MARKED and status == NOTHING_FOUND:
            status = FOUND
    return status
