"""The demo voice as the tests here take it: its folder, the sentences it never saw, and phones read back from units."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barkfast.weights.demo import FOLDER

HELD_OUT = Path(__file__).with_name("held_out.json")


def read_sentences() -> list[dict[str, Any]]:
    """Texts that were kept out of training, and the phones that the training voice said."""
    return json.loads(HELD_OUT.read_text(encoding="utf-8"))["sentences"]


def read_short_texts() -> list[dict[str, Any]]:
    """Texts of several short sentences, of words that no short sentence of the training has, with their phones."""
    return json.loads(HELD_OUT.read_text(encoding="utf-8"))["short_texts"]


def read_back(semantic: np.ndarray) -> list[str]:
    """The phones that semantic tokens spell."""
    units = pytest.importorskip("tools.demo_voice.units", reason="needs scipy (the extra `reference`)")
    table = [tuple(unit) for unit in json.loads((FOLDER / "units.json").read_text(encoding="utf-8"))["units"]]
    return units.read_phones(semantic, table)


def all_said(semantic: np.ndarray, sentences: list[str]) -> bool:
    """Whether semantic tokens spell something for at least half of the phones of every sentence of a text."""
    units = pytest.importorskip("tools.demo_voice.units", reason="needs scipy (the extra `reference`)")
    return all(units.sentences_said(read_back(semantic), [phones.split() for phones in sentences]))


def phone_error_rate(said: list[list[str]], right: list[list[str]]) -> float:
    """Insertions, deletions and substitutions, of the phones that there should be."""
    units = pytest.importorskip("tools.demo_voice.units", reason="needs scipy (the extra `reference`)")
    errors = sum(units.edit_distance(a, b) for a, b in zip(said, right, strict=True))
    return errors / sum(map(len, right))
