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


def join(first: np.ndarray, second: np.ndarray, gap: int, fade: int) -> np.ndarray:
    """Two sounds as one: `gap` samples of silence between them, or without a gap an overlap of up to `fade` samples."""
    ends = first.copy(), second.copy()
    n = [min(fade, len(sound)) for sound in ends]
    if not gap:
        n = [min(n)] * 2
    if n[0]:
        ends[0][-n[0] :] *= fade_in(n[0])[::-1].astype(first.dtype)
    ends[1][: n[1]] *= fade_in(n[1]).astype(second.dtype)
    if gap:
        return np.concatenate((ends[0], np.zeros(gap, dtype=first.dtype), ends[1]))
    overlap = n[0]
    middle = ends[0][len(first) - overlap :] + ends[1][:overlap]
    return np.concatenate((ends[0][: len(first) - overlap], middle, ends[1][overlap:]))


class Joiner:
    """Joins sounds one after the other, and gives out what is done with.

    Args:
        sample_rate: of all sounds.
        trim: see `trim_ends`.
        pauses: put silence between two sounds, less what they already end and begin with; else they overlap.

    The beginning of the first sound and the end of the last are left as they are: one sound alone, untrimmed, comes
    out as it went in.
    """

    def __init__(self, sample_rate: int, *, trim: bool = True, pauses: bool = True) -> None:
        self.sample_rate, self.trim, self.pauses = sample_rate, trim, pauses
        self._fade = round(FADE * sample_rate)
        self._held: np.ndarray | None = None
        # Seconds wanted after the sound that is held, and those it ends with already.
        self._pause = self._quiet = 0.0

    def add(self, audio: np.ndarray, pause: float) -> np.ndarray:
        """Take (n,) audio with the seconds of silence that belong after it; returns (m,) samples that are final."""
        if self.trim:
            audio = trim_ends(audio, self.sample_rate)
        begin, end = find_sound(audio, self.sample_rate)
        joined = audio
        if self._held is not None:
            gap = self._pause - self._quiet - begin / self.sample_rate if self.pauses else 0.0
            joined = join(self._held, audio, max(0, round(gap * self.sample_rate)), self._fade)
        self._pause, self._quiet = pause, (len(audio) - end) / self.sample_rate
        final = max(0, len(joined) - self._fade)
        # A copy, or the whole sound would live as long as its end.
        self._held = joined[final:].copy()
        return joined[:final]

    def rest(self, pause: float) -> None:
        """Lengthen the silence after what was added last to at least so many seconds."""
        self._pause = max(self._pause, pause)

    def finish(self) -> np.ndarray:
        """The last samples."""
        held, self._held = self._held, None
        return np.zeros(0, dtype=np.float32) if held is None else held
