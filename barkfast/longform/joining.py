"""Join pieces of speech: trim the noise at their ends, insert pauses, and fade the seams to avoid clicks."""

import numpy as np

from barkfast.longform.chunks import Chunk

# Seconds of silence after a chunk, by its ending; where a text is cut inside a clause the sounds overlap.
PAUSES = {"word": 0.0, "clause": 0.15, "sentence": 0.35, "paragraph": 0.75}
# The last mark may lengthen the pause: for example after an ellipsis or a question.
_MARKS = {"…": 0.55, "?": 0.45, "？": 0.45, "!": 0.4, "！": 0.4, ":": 0.25, "：": 0.25, ";": 0.25, "；": 0.25}
_AFTER_MARKS = "\"'»”’)]」』）】》〉 "

FADE = 0.02  # seconds of a fade-in or fade-out at a seam
_FRAME = 0.01  # seconds per frame for which loudness is measured
_KEEP = (0.03, 0.08)  # seconds of quiet kept before and after the sound: consonants begin and end below any threshold
# A frame is sound if it is louder than _QUIET times speech (-40 dB) and than twice the noise floor; a frame louder than
# _CLEAR times speech (-25 dB) always is.
_QUIET, _CLEAR = 10 ** (-40 / 20), 10 ** (-25 / 20)
# Noise after the end: a burst of at most _BURST seconds, at least _APART seconds after the sound before it, and below
# _FAINT times speech (-18 dB). A word is longer, nearer or louder.
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
    """Whether each frame is sound, (frames,) bool, the loudness of each, (frames,) RMS, and the loudness of speech."""
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
    """Cut the silence before the speech in (n,) audio, and the silence and noise after it.

    What is cut off is quiet: at least 25 dB, and usually 40 dB, below the speech, or a faint short burst well after
    it. Ends that were cut get a fade of 10 ms. Audio that is all silence does not change.
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
    """(n,) gains of an equal-power fade: their squares and those of the reversed fade add up to 1."""
    return np.sin(np.pi / 2 * (np.arange(n) + 0.5) / max(n, 1))


def _rise(sound: np.ndarray, n: int) -> np.ndarray:
    """Fade in the first `n` samples of (m,) sound."""
    n = min(n, len(sound))
    return np.concatenate((sound[:n] * fade_in(n).astype(sound.dtype), sound[n:]))


def _fall(sound: np.ndarray, n: int) -> np.ndarray:
    """Fade out the last `n` samples of (m,) sound."""
    return _rise(sound[::-1], n)[::-1]


def join(first: np.ndarray, second: np.ndarray, gap: int, fade: int) -> np.ndarray:
    """Join two sounds: `gap` samples of silence between them, or without a gap an overlap of up to `fade` samples."""
    if gap:
        return np.concatenate((_fall(first, fade), np.zeros(gap, dtype=first.dtype), _rise(second, fade)))
    overlap = min(fade, len(first), len(second))
    start = len(first) - overlap
    first, second = _fall(first, overlap), _rise(second, overlap)
    return np.concatenate((first[:start], first[start:] + second[:overlap], second[overlap:]))


class _Seams:
    """Join sounds that arrive in chunks of any size, with a fade of `fade` samples at each seam.

    The result does not depend on the chunk sizes.
    """

    def __init__(self, fade: int) -> None:
        self._fade = fade
        # The end of the current sound, held until it is known how the sound continues or ends.
        self._held = _NOTHING
        # The beginning of a sound that follows another, held until it is as long as a fade.
        self._opening: np.ndarray | None = None
        self._overlaps = False

    def push(self, samples: np.ndarray, hold: bool = True) -> np.ndarray:
        """Add the next samples of the current sound; return the samples that are final.

        Args:
            hold: hold back samples that may be the end of the sound; not needed if no other sound follows.
        """
        if self._opening is not None:
            self._opening = np.concatenate((self._opening, samples))
            if len(self._opening) < self._fade:
                return _NOTHING
            samples = self._begin(self._opening)
        joined = np.concatenate((self._held, samples))
        final = max(0, len(joined) - self._fade) if hold else len(joined)
        # A copy: a view would keep the whole sound in memory.
        self._held = joined[final:].copy()
        return joined[:final]

    def next(self, gap: int) -> np.ndarray:
        """End the current sound; another one follows, `gap` samples later. Return the samples that are final."""
        self._settle()
        self._opening, self._overlaps = _NOTHING, not gap
        if not gap:
            return _NOTHING
        held, self._held = self._held, _NOTHING
        return np.concatenate((_fall(held, self._fade), np.zeros(gap, dtype=held.dtype)))

    def finish(self) -> np.ndarray:
        """Return the last samples."""
        self._settle()
        held, self._held = self._held, _NOTHING
        return held

    def _settle(self) -> None:
        """Append a sound that ended before it was as long as a fade."""
        if self._opening is not None:
            begun = self._begin(self._opening)
            self._held = np.concatenate((self._held, begun))

    def _begin(self, opening: np.ndarray) -> np.ndarray:
        """The beginning of the current sound, faded in, or overlapped with the end of the sound before."""
        self._opening = None
        if not self._overlaps:
            return _rise(opening, self._fade)
        held, self._held = self._held, _NOTHING
        return join(held, opening, 0, self._fade)


def _silence_after(audio: np.ndarray, sample_rate: int) -> float:
    """Seconds of silence at the end of (n,) audio."""
    return (len(audio) - find_sound(audio, sample_rate)[1]) / sample_rate


class Joiner:
    """Joins sounds one after the other, and returns samples as soon as they are final.

    Args:
        sample_rate: of all sounds.
        trim: see `trim_ends`.
        pauses: insert silence between two sounds, less the silence at the end of the first and, for trimmed sounds, at
            the start of the second; False: they overlap.

    The beginning of the first sound and the end of the last get no fade: a single untrimmed sound does not change.
    For untrimmed sounds the result is the same as that of `LiveJoiner`.
    """

    def __init__(self, sample_rate: int, *, trim: bool = True, pauses: bool = True) -> None:
        self.sample_rate, self.trim, self.pauses = sample_rate, trim, pauses
        self._seams = _Seams(round(FADE * sample_rate))
        self._begun = False
        # Seconds of silence wanted after the previous sound, and seconds that it ends with already.
        self._pause = self._quiet = 0.0

    def add(self, audio: np.ndarray, pause: float) -> np.ndarray:
        """Add (n,) audio, to be followed by `pause` seconds of silence; return (m,) samples that are final."""
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
        """Lengthen the silence after the latest sound to at least `pause` seconds."""
        self._pause = max(self._pause, pause)

    def finish(self) -> np.ndarray:
        """Return the last samples."""
        return self._seams.finish()


class LiveJoiner:
    """Joins untrimmed sounds that arrive chunk by chunk.

    The beginning of a sound is final before its loudness is known, so a pause is shortened only by the silence before.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._seams = _Seams(round(FADE * sample_rate))
        self._sound: list[np.ndarray] = []

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """Add the next (n,) samples; return (m,) final samples: all of the `last` sound, of others all but 20 ms."""
        if not last:
            self._sound.append(samples)
        return self._seams.push(samples, hold=not last)

    def next(self, pause: float) -> np.ndarray:
        """End the sound; another one follows after `pause` seconds of silence. Return the samples that are final."""
        quiet = _silence_after(np.concatenate((_NOTHING, *self._sound)), self.sample_rate)
        self._sound.clear()
        return self._seams.next(max(0, round((pause - quiet) * self.sample_rate)))

    def finish(self) -> np.ndarray:
        """Return the last samples."""
        return self._seams.finish()
