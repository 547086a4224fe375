"""`barkfast convert`: write any model as a slim folder of safetensors."""

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "convert",
        help="write a model as a slim folder that loads in seconds",
        description="Write a model as a folder of safetensors with its tokenizer and voices, to be opened by its path.",
    )
    parser.add_argument("source", metavar="SRC", help="a model: name, hub id or folder")
    parser.add_argument("destination", metavar="DST", help="the folder to write; must not exist yet, or be empty")
    parser.add_argument("--dtype", default="bf16", help="bf16, fp16 or fp32 (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="the small networks, where the model has both sizes")
    parser.add_argument("--codec", help="EnCodec's weights, if not the model's own")
    voices = parser.add_mutually_exclusive_group()
    voices.add_argument("--voices", metavar="FOLDER", help="take the voices of this folder, not the model's")
    voices.add_argument("--no-voices", action="store_true", help="leave voices out")
    parser.add_argument("--force", action="store_true", help="replace DST if it is an earlier conversion")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the result's path and size."""
    from barkfast.weights.convert import convert

    folder = convert(
        args.source,
        args.destination,
        args.dtype,
        args.codec,
        not args.no_voices if args.voices is None else args.voices,
        small=args.small,
        force=args.force,
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {args.source} as {args.dtype}, {size / 1e6:.1f} MB")
    return 0
