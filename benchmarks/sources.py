"""Where the weights under test come from, and the text that is spoken with them."""

from pathlib import Path

from barkfast.weights.convert import MARKER
from benchmarks.plan import Plan

TEXT = "Every step of speaking this sentence runs on the device, and somebody measures how long each of them takes."
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyzE", "##e", ",", "."]


def source(plan: Plan, size: str) -> str:
    """What to open for a size: the converted folder, or where there is none, the recipe itself."""
    folder = plan.models / size
    return str(folder) if (folder / MARKER).exists() else f"random:{size}"


def vocabulary(folder: Path) -> Path:
    """A small vocab.txt: which ids a text has does not matter to random weights, or to the time."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path
