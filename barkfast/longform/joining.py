"""Pieces of speech into one: without the noise at their ends, with the pauses that belong there, without clicks."""

import numpy as np

from barkfast.longform.chunks import Chunk

# Seconds of silence after what a chunk ends in; where a text is cut inside a clause the sounds run into each other.
PAUSES = {"word": 0.0, "clause": 0.15, "sentence": 0.35, "paragraph": 0.75}
# After a sentence the last mark says more: thoughts that trail off, and questions, wait longer.
_MARKS = {"…": 0.55, "?": 0.45, "？": 0.45, "!": 0.4, "！": 0.4, ":": 0.25, "：": 0.25, ";": 0.25, "；": 0.25}
_AFTER_MARKS = "\"'»”’)]」』）】》〉 "

FADE = 0.02  # seconds in which a sound comes and goes at a seam
_FRAME = 0.01  # seconds of which the loudness is looked at together
_KEEP = (0.03, 0.08)  # seconds of quiet left before and after the sound: consonants begin and end below any threshold
# A frame sounds if it is louder than this much below speech (-40 dB), and than twice the noise floor; but what is
# louder than the second figure (-25 dB) always sounds.
_QUIET, _CLEAR = 10 ** (-40 / 20), 10 ** (-25 / 20)
# Noise after the end: a burst no longer than this, at least so long after the sound before it, and so much below
# speech. A word is longer, nearer or louder.
_BURST, _APART, _FAINT = 0.12, 0.3, 10 ** (-18 / 20)
_NOTHING = np.zeros(0, dtype=np.float32)


def pause_after(chunk: Chunk) -> float:
    """Seconds of silence that belong after a chunk."""
    pause = PAUSES[chunk.ending]
    if chunk.ending == "word":
        return pause
    text = chunk.text.rstrip(_AFTER_MARKS)
    mark = "…" if text.endswith("...") else text[-1:]
    return max(pause, _MARKS.get(mark, 0.0))


def _sounding(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Which frames sound, (frames,) bool, how loud all are, (frames,) RMS, and how loud speech is in them."""
    frame = max(1, round(sample_rate * _FRAME))
    padded = np.pad(audio.astype(np.float64), (0, -len(audio) % frame)).reshape(-1, frame)
    loudness = np.sqrt(np.mean(padded**2, axis=1))
    speech = float(np.percentile(loudness, 95))
    floor = float(np.percentile(loudness, 10))
    threshold = min(max(speech * _QUIET, 2 * floor), speech * _CLEAR)
    return loudness > threshold, loudness, speech


def find_sound(audio: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """Where the speech in (n,) audio begins and ends, in samples, without noise after its end; (0, n) for silence."""
    if not len(audio):
        return 0, 0
    sounds, loudness, speech = _sounding(audio, sample_rate)
    islands = np.flatnonzero(np.diff(np.concatenate(([False], sounds, [False])).astype(np.int8))).reshape(-1, 2)
    if not len(islands):
        return 0, len(audio)
    while len(islands) > 1:
        (_, before), (first, end) = islands[-2], islands[-1]
        short, apart = (end - first) * _FRAME <= _BURST, (first - before) * _FRAME >= _APART
        if not (short and apart and loudness[first:end].max() < speech * _FAINT):
            break
        islands = islands[:-1]
    frame = max(1, round(sample_rate * _FRAME))
    return int(islands[0][0]) * frame, min(len(audio), int(islands[-1][1]) * frame)


def trim_ends(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(n,) audio without the silence before the speech in it, and without the silence and noise after it.

    What is cut off is quiet: at least 25 dB, and as a rule 40 dB, below the speech, or a faint short burst well after
    it. Both ends then come and go within a few milliseconds. Silence stays as it is.
    """
    begin, end = find_sound(audio, sample_rate)
    first = max(0, begin - round(_KEEP[0] * sample_rate))
    last = min(len(audio), end + round(_KEEP[1] * sample_rate))
    trimmed = audio[first:last].copy()
    n = min(round(FADE / 2 * sample_rate), len(trimmed) // 2)
    rise = fade_in(n).astype(audio.dtype)
    if n and first:
        trimmed[:n] *= rise
    if n and last < len(audio):
        trimmed[-n:] *= rise[::-1]
    return trimmed


def fade_in(n: int) -> np.ndarray:
    """(n,) gains of an equal-power fade: their squares and those of the reverse add up to 1."""
    return np.sin(np.pi / 2 * (np.arange(n) + 0.5) / max(n, 1))


def _rise(sound: np.ndarray, n: int) -> np.ndarray:
    """(m,) sound whose first `n` samples come out of silence."""
    n = min(n, len(sound))
    return np.concatenate((sound[:n] * fade_in(n).astype(sound.dtype), sound[n:]))


def _fall(sound: np.ndarray, n: int) -> np.ndarray:
    """(m,) sound whose last `n` samples go into silence."""
    return _rise(sound[::-1], n)[::-1]


def join(first: np.ndarray, second: np.ndarray, gap: int, fade: int) -> np.ndarray:
    """Two sounds as one: `gap` samples of silence between them, or without a gap an overlap of up to `fade` samples."""
    if gap:
        return np.concatenate((_fall(first, fade), np.zeros(gap, dtype=first.dtype), _rise(second, fade)))
    overlap = min(fade, len(first), len(second))
    start = len(first) - overlap
    first, second = _fall(first, overlap), _rise(second, overlap)
    return np.concatenate((first[:start], first[start:] + second[:overlap], second[overlap:]))


class _Seams:
    """Sounds one after the other, in chunks of any size, with a fade of `fade` samples wherever one ends.

    What comes of them does not depend on the chunks.
    """

    def __init__(self, fade: int) -> None:
        self._fade = fade
        # The end of the present sound: how it goes on, or ends, is not known yet.
        self._held = _NOTHING
        # The beginning of a sound that follows another, until it is as long as a fade.
        self._opening: np.ndarray | None = None
        self._overlaps = False

    def push(self, samples: np.ndarray, hold: bool = True) -> np.ndarray:
        """Take the next samples of the present sound; returns those that are final.

        Args:
            hold: back what may turn out to be its end; not needed where no other sound follows.
        """
        if self._opening is not None:
            self._opening = np.concatenate((self._opening, samples))
            if len(self._opening) < self._fade:
                return _NOTHING
            samples = self._begin()
        joined = np.concatenate((self._held, samples))
        final = max(0, len(joined) - self._fade) if hold else len(joined)
        # A copy, or the whole sound would live as long as its end.
        self._held = joined[final:].copy()
        return joined[:final]

    def next(self, gap: int) -> np.ndarray:
        """The present sound has ended, and another follows, `gap` samples later; returns what is final."""
        self._settle()
        self._opening, self._overlaps = _NOTHING, not gap
        if not gap:
            return _NOTHING
        held, self._held = self._held, _NOTHING
        return np.concatenate((_fall(held, self._fade), np.zeros(gap, dtype=held.dtype)))

    def finish(self) -> np.ndarray:
        """The last samples."""
        self._settle()
        held, self._held = self._held, _NOTHING
        return held

    def _settle(self) -> None:
        """Let a sound that has ended shorter than a fade be the end of the present one."""
        if self._opening is not None:
            begun = self._begin()
            self._held = np.concatenate((self._held, begun))

    def _begin(self) -> np.ndarray:
        """The beginning of the present sound, as it follows the one before."""
        opening, self._opening = self._opening, None
        assert opening is not None
        if not self._overlaps:
            return _rise(opening, self._fade)
        held, self._held = self._held, _NOTHING
        return join(held, opening, 0, self._fade)


def _silence_after(audio: np.ndarray, sample_rate: int) -> float:
    """Seconds of silence that (n,) audio ends with."""
    return (len(audio) - find_sound(audio, sample_rate)[1]) / sample_rate


class Joiner:
    """Joins sounds one after the other, and gives out what is done with.

    Args:
        sample_rate: of all sounds.
        trim: see `trim_ends`.
        pauses: put silence between two sounds, less what the first ends with already, and of trimmed sounds less what
            the second begins with; else they overlap.

    The beginning of the first sound and the end of the last are left as they are: one sound alone, untrimmed, comes
    out as it went in. Of untrimmed sounds comes what `LiveJoiner` makes of them.
    """

    def __init__(self, sample_rate: int, *, trim: bool = True, pauses: bool = True) -> None:
        self.sample_rate, self.trim, self.pauses = sample_rate, trim, pauses
        self._seams = _Seams(round(FADE * sample_rate))
        self._begun = False
        # Seconds wanted after the sound before, and those it ends with already.
        self._pause = self._quiet = 0.0

    def add(self, audio: np.ndarray, pause: float) -> np.ndarray:
        """Take (n,) audio with the seconds of silence that belong after it; returns (m,) samples that are final."""
        before = _NOTHING
        if self.trim:
            audio = trim_ends(audio, self.sample_rate)
        if self._begun:
            gap = self._pause - self._quiet if self.pauses else 0.0
            if self.trim:
                gap -= find_sound(audio, self.sample_rate)[0] / self.sample_rate
            before = self._seams.next(max(0, round(gap * self.sample_rate)))
        self._begun = True
        self._pause, self._quiet = pause, _silence_after(audio, self.sample_rate)
        return np.concatenate((before, self._seams.push(audio)))

    def rest(self, pause: float) -> None:
        """Lengthen the silence after what was added last to at least so many seconds."""
        self._pause = max(self._pause, pause)

    def finish(self) -> np.ndarray:
        """The last samples."""
        return self._seams.finish()


class LiveJoiner:
    """Joins untrimmed sounds of which chunk after chunk comes.

    Their beginnings are heard before their loudness is known, so pauses are shortened by the silence before them alone.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._seams = _Seams(round(FADE * sample_rate))
        self._sound: list[np.ndarray] = []

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """Take the next (n,) samples; returns (m,) that are final: of the `last` sound all, of others all but 20 ms."""
        if not last:
            self._sound.append(samples)
        return self._seams.push(samples, hold=not last)

    def next(self, pause: float) -> np.ndarray:
        """The sound has ended, and another follows after so many seconds of silence; returns what is final."""
        quiet = _silence_after(np.concatenate((_NOTHING, *self._sound)), self.sample_rate)
        self._sound.clear()
        return self._seams.next(max(0, round((pause - quiet) * self.sample_rate)))

    def finish(self) -> np.ndarray:
        """The last samples."""
        return self._seams.finish()
