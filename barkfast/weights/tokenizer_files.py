"""Where the files of a model's tokenizer are."""

import os
from pathlib import Path

from barkfast.files import expand
from barkfast.weights.checkpoint import Checkpoint
from barkfast.weights.demo import NAME as DEMO

# The second is the same repository under its current name.
BERT_REPOS = ("bert-base-multilingual-cased", "google-bert/bert-base-multilingual-cased")


def find_tokenizer_file(path: str | os.PathLike[str]) -> Path | None:
    """The tokenizer.json or vocab.txt at a path, which is either file or their folder; None if there is none."""
    path = expand(path)
    if path.is_dir():
        return next((path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()), None)
    return path if path.is_file() else None


def named_tokenizer(checkpoint: Checkpoint) -> str | None:
    """$BARKFAST_TOKENIZER, unless the model is the demo voice: it has its own alphabet."""
    return None if checkpoint.name == DEMO else os.environ.get("BARKFAST_TOKENIZER") or None


def tokenizer_repos(checkpoint: Checkpoint) -> list[str]:
    """The hub repositories that may have the model's tokenizer, in search order."""
    return [*([checkpoint.repo] if checkpoint.repo else []), *BERT_REPOS]
