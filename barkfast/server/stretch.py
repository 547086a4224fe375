"""Speech faster or slower at the same pitch, while it is generated: waveform similarity overlap-add (WSOLA).

Verhelst and Roelands, "An overlap-add technique based on waveform similarity (WSOLA) for high quality time-scale
modification of speech", 1993. Frames of the input are laid half over each other. Each is taken from near the place that
the speed asks for, where it continues the frame before best.
"""

import numpy as np

from barkfast.errors import InputError

SLOWEST, FASTEST = 0.25, 4.0
# Seconds of a frame, and how far from its place a better one is looked for.
FRAME_S, SEARCH_S = 0.032, 0.010


class Stretch:
    """Changes the speed of one sound.

    Args:
        sample_rate: samples per second.
        speed: 0.25 to 4; at 1 the samples stay what they are.

    Raises:
        InputError: another speed.
    """

    def __init__(self, sample_rate: int, speed: float) -> None:
        if not SLOWEST <= speed <= FASTEST:
            raise InputError(f"speed is {speed}; expected {SLOWEST:g} to {FASTEST:g}")
        self.speed = speed
        self._hop = round(sample_rate * FRAME_S / 2)
        self._search = round(sample_rate * SEARCH_S)
        # Half frames that fade in; those that fade out are their complement, so that both add up to 1.
        self._fade = np.float32(0.5 - 0.5 * np.cos(np.pi * (np.arange(self._hop) + 0.5) / self._hop))
        # The input from sample `_first` on, which later frames may need.
        self._input = np.zeros(0, np.float32)
        self._first = 0
        # Samples received and returned, and frames laid.
        self._received = self._returned = self._frames = 0
        # Where the last frame was taken, and its second half, which the next one overlaps.
        self._last = 0
        self._tail = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """What (n,) float32 samples give, (m,) float32, maybe none yet."""
        if self.speed == 1:
            return samples
        self._input = np.concatenate([self._input, np.float32(samples)])
        self._received += len(samples)
        return self._lay(self._received)

    def finish(self) -> np.ndarray:
        """What is left, (m,) float32: in all as many samples as were pushed, over the speed."""
        if self.speed == 1:
            return np.zeros(0, np.float32)
        wanted = round(self._received / self.speed) - self._returned
        # Silence behind the end, so that every frame is whole.
        ahead = np.zeros(2 * self._hop + self._search + round((wanted + 2 * self._hop) * self.speed), np.float32)
        self._input = np.concatenate([self._input, ahead])
        rest = self._lay(self._received + len(ahead))[:wanted]
        return np.pad(rest, (0, wanted - len(rest)))

    def _lay(self, known: int) -> np.ndarray:
        """Lay every frame that the input up to sample `known` is enough for."""
        found = []
        while True:
            place = round(self._frames * self._hop * self.speed)
            # The frame with its search, the natural continuation of the one before, and what the frame stands for.
            needed = max(place + self._search, self._last + self._hop) + 2 * self._hop
            if max(needed, place + round(self._hop * self.speed)) > known:
                break
            start = self._choose(place) if self._frames else 0
            frame = self._input[start - self._first : start - self._first + 2 * self._hop]
            head = frame[: self._hop]
            found.append(head * self._fade + self._tail if self._frames else head.copy())
            self._tail = frame[self._hop :] * (1 - self._fade)
            self._last, self._frames = start, self._frames + 1
            self._forget()
        laid = np.concatenate(found) if found else np.zeros(0, np.float32)
        self._returned += len(laid)
        return laid

    def _choose(self, place: int) -> int:
        """The start near `place` whose frame begins most like what follows the last frame's first half."""
        follows = self._last + self._hop - self._first
        wanted = self._input[follows : follows + self._hop]
        low = max(place - self._search, self._first)
        region = self._input[low - self._first : place + self._search + self._hop - self._first]
        likeness = np.correlate(region, wanted, "valid")
        power = np.concatenate([[0.0], np.cumsum(np.square(region, dtype=np.float64))])
        loudness = np.sqrt(np.maximum(power[self._hop :] - power[: -self._hop], 1e-9))
        return low + int(np.argmax(likeness / loudness))

    def _forget(self) -> None:
        """Drop input that no later frame needs."""
        place = round(self._frames * self._hop * self.speed)
        needed = min(place - self._search, self._last + self._hop)
        drop = max(0, needed - self._first)
        self._input, self._first = self._input[drop:], self._first + drop
