"""The measures of difference, on known differences."""

import numpy as np
import pytest

from barkfast.bench import compare
from barkfast.bench.compare import count_equal, kl, log_mel_distance, pooled_rms_ratio, rms_ratio
from barkfast.errors import InputError

RATE = 24_000


def noise(seed: int = 0, n: int = 12_000) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def test_rms_ratio() -> None:
    assert rms_ratio(np.array([3.0, 4.0]), np.array([3.0, 4.0])) == 0
    assert rms_ratio(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    values = noise()
    assert rms_ratio(values, 1.25 * values) == pytest.approx(0.25)
    # Several arrays count as one.
    parts = np.split(values, [5, 700])
    assert pooled_rms_ratio(parts, [part + 0.01 for part in parts]) == pytest.approx(rms_ratio(values, values + 0.01))


def test_rms_ratio_where_nothing_is_expected() -> None:
    assert rms_ratio(np.zeros(3), np.zeros(3)) == 0
    assert rms_ratio(np.zeros(3), np.ones(3)) == 1


def test_rms_ratio_of_unequal_shapes() -> None:
    with pytest.raises(InputError, match=r"shape \(2,\) was compared with one of \(3,\)"):
        rms_ratio(np.zeros(3), np.zeros(2))


def test_kl_of_known_distributions() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    assert kl([np.log(p)], [np.log(q)]) == pytest.approx(expected)
    # A constant added to all logits changes nothing; the mean is over positions, which may differ in width.
    assert kl([np.log(p) + 700, np.zeros(7)], [np.log(q) - 3, np.full(7, 5.0)]) == pytest.approx(expected / 2)
    logits = noise().reshape(100, -1)
    assert kl(list(logits), list(logits)) == 0


def test_count_equal() -> None:
    assert count_equal(np.array([1, 2, 3]), np.array([1, 5, 3])) == 2
    assert count_equal(np.array([1, 2, 3]), np.array([1, 2])) == 2
    assert count_equal(np.array([1]), np.zeros(0)) == 0


def test_the_same_sound_has_no_distance() -> None:
    assert log_mel_distance(noise(), noise(), RATE) == 0


def test_half_the_pressure_is_six_decibels() -> None:
    assert log_mel_distance(noise(), 0.5 * noise(), RATE) == pytest.approx(20 * np.log10(2), abs=0.01)


def test_distances_grow_with_the_difference() -> None:
    sound, other = noise(), noise(1)
    distances = [log_mel_distance(sound, sound + share * other, RATE) for share in (0.001, 0.01, 0.1, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] < 0.1 and distances[-1] > 2
    assert log_mel_distance(sound, np.zeros_like(sound), RATE) > 20


def test_silence_is_silence_however_quiet() -> None:
    tone = np.sin(np.arange(12_000) * 2 * np.pi * 440 / RATE).astype(np.float32)
    quiet = np.concatenate([tone, np.zeros(12_000, np.float32)])
    hiss = quiet + 1e-7 * noise(2, 24_000)
    assert log_mel_distance(quiet, hiss, RATE) < 0.01
    assert log_mel_distance(np.zeros(5000), np.zeros(5000), RATE) == 0


def test_a_missing_end_is_heard() -> None:
    sound = noise()
    assert log_mel_distance(sound, sound[:6000], RATE) > 10
    # Shorter than one window.
    assert log_mel_distance(sound[:100], sound[:100], RATE) == 0


def test_every_band_hears_something() -> None:
    filters = compare.mel_filters(RATE)
    assert filters.shape == (compare.BANDS, compare.WINDOW // 2 + 1)
    assert float(filters.min()) >= 0 and float(filters.max()) <= 1
    assert (filters.sum(1) > 0).all()
    # From low to high.
    centres = filters.argmax(1)
    assert (centres[1:] >= centres[:-1]).all()
