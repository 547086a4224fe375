"""The speed changes the length and nothing else."""

import numpy as np
import pytest

from barkfast.errors import InputError
from barkfast.server.stretch import Stretch
from server.running import Running, decode

RATE = 24_000
SPEEDS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)


def stretch(sound: np.ndarray, speed: float, size: int = 1000) -> np.ndarray:
    stretch = Stretch(RATE, speed)
    pieces = [stretch.push(sound[i : i + size]) for i in range(0, len(sound), size)]
    return np.concatenate([*pieces, stretch.finish()])


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    """3 seconds of 220 Hz, (n,) float32."""
    return np.float32(0.4 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE) / RATE))


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_length_follows_the_speed_and_the_pitch_stays(tone: np.ndarray, speed: float):
    made = stretch(tone, speed)
    assert len(made) == round(len(tone) / speed)
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made))))
    assert abs(np.argmax(spectrum) * RATE / len(made) - 220) < 2
    # No clicks: no step that the tone itself does not make.
    inner = made[RATE // 20 : -RATE // 20]
    assert np.abs(np.diff(inner)).max() < 1.3 * np.abs(np.diff(tone)).max()
    assert 0.3 < np.abs(inner).max() < 0.45


@pytest.mark.parametrize("speed", SPEEDS)
def test_samples_do_not_depend_on_the_chunks(tone: np.ndarray, speed: float):
    noisy = tone + np.random.default_rng(1).normal(0, 0.05, len(tone)).astype(np.float32)
    assert np.array_equal(stretch(noisy, speed), stretch(noisy, speed, 7777))


def test_speed_one_changes_no_bit(tone: np.ndarray):
    assert np.array_equal(stretch(tone, 1.0), tone)


@pytest.mark.parametrize("n", [0, 1, 50, 500, 1500])
@pytest.mark.parametrize("speed", [0.25, 0.9, 4.0])
def test_short_sounds_have_their_length(n: int, speed: float):
    assert len(stretch(np.ones(n, np.float32), speed)) == round(n / speed)


def test_memory_is_bounded():
    stretch = Stretch(RATE, 0.5)
    for _ in range(200):
        stretch.push(np.zeros(4800, np.float32))
    assert len(stretch._input) < RATE // 2


@pytest.mark.parametrize("speed", [0.2, 5.0, float("nan")])
def test_other_speeds_are_refused(speed: float):
    with pytest.raises(InputError, match="speed"):
        Stretch(RATE, speed)


def test_a_request_has_the_length_of_its_speed(demo: Running):
    lengths = {}
    for speed in (None, 1.0, 0.5, 2):
        response = demo.post({"input": "Yes.", "seed": 1, "speed": speed, "response_format": "pcm"})
        lengths[speed] = len(decode(response.content, "pcm"))
    assert lengths[1.0] == lengths[None]
    assert abs(lengths[0.5] - 2 * lengths[None]) <= 1 and abs(lengths[2] - lengths[None] / 2) <= 1
