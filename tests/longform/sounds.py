"""Sounds to join and to trim."""

import numpy as np

RATE = 24_000


def tone(seconds: float, frequency: float = 220.0, level: float = 0.3) -> np.ndarray:
    """A tone that begins and ends at full level, (n,) float32."""
    return (level * np.cos(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds: float, level: float = 0.0) -> np.ndarray:
    """Silence, or faint noise of the given level, (n,) float32."""
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)
