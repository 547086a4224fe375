"""Semantic units: phone x quarter of the phone x pitch level. Pure functions, in both directions.

A phone lasts a few units of 20 ms, and each says in which quarter of the phone it is. So a network that generates
units always knows how far it has come, and phones can be read back. Voiced phones also have one of three pitch levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .features import UNIT_RATE
from .work import words

UNVOICED = words("pau ch f hh k p s sh t th")
VOICED = words("aa ae ah ao aw ax ay b d dh eh er ey g ih iy jh l m n ng ow oy r uh uw v w y z zh")
N_STATES = 4
N_LEVELS = 3


class Unit(NamedTuple):
    """What one id means; the level is 1 (the middle) for every unvoiced phone."""

    phone: str
    state: int
    level: int


class Segment(NamedTuple):
    """A phone or word in time, seconds."""

    start: float
    end: float
    name: str


def make_table() -> list[Unit]:
    """Every unit, by id."""
    unvoiced = [Unit(phone, state, 1) for phone in UNVOICED for state in range(N_STATES)]
    voiced = [Unit(phone, s, level) for phone in VOICED for s in range(N_STATES) for level in range(N_LEVELS)]
    return unvoiced + voiced


TABLE = make_table()
IDS = {unit: i for i, unit in enumerate(TABLE)}
N_UNITS = len(TABLE)


def unit_times(duration: float) -> np.ndarray:
    """The middles of a clip's units, seconds."""
    return (np.arange(int(duration * UNIT_RATE)) + 0.5) / UNIT_RATE


def smooth_pitch(pitch: np.ndarray) -> np.ndarray:
    """log2 of the pitch, gaps bridged, outliers and jitter removed; nan everywhere if there is no pitch at all."""
    known = np.flatnonzero(~np.isnan(pitch))
    if len(known) == 0:
        return np.full(len(pitch), np.nan)
    curve = np.interp(np.arange(len(pitch)), known, np.log2(pitch[known]))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(curve, 2, mode="edge"), 5)
    medians = np.median(windows, axis=1)
    return np.convolve(np.pad(medians, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")


def encode_units(phones: Sequence[Segment], pitch: np.ndarray, borders: tuple[float, float]) -> np.ndarray:
    """Units of a clip, int16.

    Args:
        phones: its phones in time, without gaps.
        pitch: (n,) Hz at `unit_times`, nan where unknown.
        borders: log2 pitch below which a quarter of a phone is low, and above which it is high.
    """
    times = unit_times(phones[-1].end)[: len(pitch)]
    curve = smooth_pitch(pitch)
    which = np.minimum(np.searchsorted([phone.end for phone in phones], times, side="right"), len(phones) - 1)
    start, end = (np.array([getattr(phone, field) for phone in phones])[which] for field in ("start", "end"))
    state = np.minimum(N_STATES - 1, N_STATES * (times - start) / np.maximum(end - start, 1e-6)).astype(int)
    units = np.zeros(len(times), np.int16)
    for i in np.unique(which * N_STATES + state):
        here = which * N_STATES + state == i
        name, level = phones[i // N_STATES].name, 1
        if name in VOICED and not np.isnan(curve).any():
            level = int(np.searchsorted(borders, curve[here].mean()))
        units[here] = IDS[Unit(name, int(i % N_STATES), level)]
    return units


def read_phones(units: Sequence[int], table: Sequence[tuple[str, int, int]] = TABLE) -> list[str]:
    """The phones that units spell, pauses left out; ids beyond the table (the end token) are skipped.

    A new phone begins where the name changes, or where the quarter falls by two or more: one step back is jitter.
    """
    phones, last, last_state = [], "", 0
    for i in units:
        if not 0 <= i < len(table):
            continue
        name, state, _ = table[int(i)]
        if name != last or state < last_state - 1:
            phones.append(name)
        last, last_state = name, state
    return [name for name in phones if name != "pau"]


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and substitutions between two sequences."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def answered(said: Sequence[str], right: Sequence[str]) -> list[bool]:
    """For each phone of `right`, whether something was said for it, right or wrong.

    This uses the alignment with the fewest errors, and among those the one with the most matches.
    """
    rows = [[(j, 0) for j in range(len(right) + 1)]]
    for i, x in enumerate(said, 1):
        row, above = [(i, 0)], rows[-1]
        for j, y in enumerate(right, 1):
            row.append(min(_worse(above[j]), _worse(row[-1]), _paired(above[j - 1], x == y)))
        rows.append(row)
    found, i, j = [False] * len(right), len(said), len(right)
    while i and j:
        same = said[i - 1] == right[j - 1]
        if rows[i][j] == _paired(rows[i - 1][j - 1], same):
            i, j = i - 1, j - 1
            found[j] = True
        elif rows[i][j] == _worse(rows[i - 1][j]):
            i -= 1
        else:
            j -= 1
    return found


def _worse(cost: tuple[int, int]) -> tuple[int, int]:
    """Errors and matches (negative) after one more phone without a match."""
    return cost[0] + 1, cost[1]


def _paired(cost: tuple[int, int], same: bool) -> tuple[int, int]:
    """Errors and matches (negative) after one more pair of phones."""
    return (cost[0], cost[1] - 1) if same else _worse(cost)


def sentences_said(said: Sequence[str], sentences: Sequence[Sequence[str]]) -> list[bool]:
    """For each sentence of a text, whether it was said: something was said for at least half of its phones.

    Only phones that were left out count against it. Wrong ones do not: the phone error rate measures those.
    """
    found = iter(answered(said, [phone for sentence in sentences for phone in sentence]))
    return [2 * sum(next(found) for _ in sentence) >= len(sentence) for sentence in sentences]
