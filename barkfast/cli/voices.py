"""`barkfast voices`: the names that `--voice` takes."""

import argparse
import json
import os
from typing import Any

from barkfast.voices import find_voices


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("voices", help="list the voices and where each would be taken from")
    parser.add_argument("--model", help="list this model's own voices too (default: BARKFAST_MODEL)")
    parser.add_argument("--json", action="store_true", help='print {"name": "where", ...}')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the names; the default model is not opened, since that may need a download."""
    from barkfast.weights import open_model

    named = args.model or os.environ.get("BARKFAST_MODEL")
    voices = find_voices(open_model(named) if named else None)
    if not named:
        voices = dict.fromkeys(find_voices(open_model("demo")), "the built-in demo model (--model demo)") | voices
    if args.json:
        print(json.dumps(voices, indent=2))
        return 0
    width = max(map(len, voices), default=0)
    for name, where in voices.items():
        print(f"{name:<{width}}  {where}")
    return 0
