"""Helpers for tests of the demo voice: held-out texts, and phones read back from semantic tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barkfast.weights.demo import FOLDER

HELD_OUT = Path(__file__).with_name("held_out.json")


def read_sentences() -> list[dict[str, Any]]:
    """Texts that were held out of training, with the phones that the training voice spoke."""
    return json.loads(HELD_OUT.read_text(encoding="utf-8"))["sentences"]


def read_short_texts() -> list[dict[str, Any]]:
    """Texts of several short sentences, with their phones; no short training sentence contains their words."""
    return json.loads(HELD_OUT.read_text(encoding="utf-8"))["short_texts"]


def read_back(semantic: np.ndarray) -> list[str]:
    """Convert semantic tokens to phones."""
    units = pytest.importorskip("training.demo_voice.units", reason="needs scipy (the extra `reference`)")
    table = [tuple(unit) for unit in json.loads((FOLDER / "units.json").read_text(encoding="utf-8"))["units"]]
    return units.read_phones(semantic, table)


def all_said(semantic: np.ndarray, sentences: list[str]) -> bool:
    """Whether semantic tokens have something for at least half of the phones of every sentence of a text."""
    units = pytest.importorskip("training.demo_voice.units", reason="needs scipy (the extra `reference`)")
    return all(units.sentences_said(read_back(semantic), [phones.split() for phones in sentences]))


def phone_error_rate(said: list[list[str]], right: list[list[str]]) -> float:
    """Insertions, deletions and substitutions, divided by the number of expected phones."""
    units = pytest.importorskip("training.demo_voice.units", reason="needs scipy (the extra `reference`)")
    errors = sum(units.edit_distance(a, b) for a, b in zip(said, right, strict=True))
    return errors / sum(map(len, right))
