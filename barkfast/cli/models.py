"""The model of a command if the user names none."""

import os

from barkfast.cli.process import note
from barkfast.errors import MissingFileError


def choose_model(named: str | None, small: bool) -> str | None:
    """The named model, or the default one (None); the demo voice, with a note, if the default one is missing."""
    if named is not None or os.environ.get("BARKFAST_MODEL"):
        return named
    from barkfast.weights import open_model

    try:
        open_model(small=small or None)
    except MissingFileError as error:
        note(
            f"barkfast: speaking with the built-in demo voice (--model demo): {error.__cause__ or error}. Get the "
            "real model with a network by `hf download suno/bark --exclude '*.pt'`, or name one with --model"
        )
        return "demo"
    return None
