"""Coarse codes -> a chain of jobs for the fine network, one per overlapping window."""

import math
from typing import Any

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.jobs import FineJob

# For LiveFineWindows, in frames: look-ahead after the frames that a window finalizes, frames that the first window and
# any window finalizes, past. The first window needs one coarse window of 60 tokens, 30 frames; see docs/streaming.md.
LOOK_AHEAD, HOP, MAX_HOP, PAST = 15, 14, 112, 128


class FineWindows:
    """The state of one fine generation: creates a job per window and takes the filled window.

    Windows advance by max_history frames. The last one is aligned to the end, so frames that an earlier
    window filled are predicted again, with the earlier prediction as input: the reference does the same.

    Args:
        codes: (n, frames) codes of the first n codebooks.
        history: (codebooks, m) codes of a voice; its last `max_history` frames are put in front.
    """

    def __init__(
        self,
        codes: np.ndarray,
        layout: Layout,
        sampling: Sampling,
        *,
        history: np.ndarray | None = None,
        random: Any = None,
    ) -> None:
        self.layout, self.sampling, self.random = layout, sampling, random
        fine = layout.fine
        self.n_given, self.n_frames = codes.shape
        past = np.zeros((fine.n_codebooks, 0)) if history is None else history[:, -fine.max_history :]
        self.n_history = past.shape[1]
        total = max(fine.window, self.n_history + self.n_frames)
        # (frames, codebooks), unknown entries hold the pad id.
        self.frames = np.full((total, fine.n_codebooks), layout.codebook_size, dtype=np.int32)
        self.frames[: self.n_history] = past.T
        self.frames[self.n_history : self.n_history + self.n_frames, : self.n_given] = codes.T
        beyond = self.n_frames - (fine.window - self.n_history)
        self.n_windows = max(0, math.ceil(beyond / fine.max_history)) + 1
        self.n_done = 0

    def bounds(self) -> tuple[int, int]:
        """The next window's first frame, and the first frame it fills."""
        fine, total = self.layout.fine, len(self.frames)
        hop = fine.max_history
        return min(self.n_done * hop, total - fine.window), min(self.n_history + self.n_done * hop, total - hop)

    @property
    def done(self) -> bool:
        """Whether all windows are filled."""
        return self.n_done == self.n_windows

    @property
    def n_final(self) -> int:
        """Generated frames that no later window changes: the codec can decode them already."""
        if self.done:
            return self.n_frames
        return max(0, self.bounds()[1] - self.n_history) if self.n_done else 0

    def next_job(self) -> FineJob | None:
        """The job for the next window, or None when all are done."""
        if self.done:
            return None
        start, fill = self.bounds()
        return FineJob(
            window=self.frames[start : start + self.layout.fine.window].copy(),
            first_frame=fill - start,
            first_codebook=self.n_given,
            codebook_size=self.layout.codebook_size,
            sampling=self.sampling,
            random=self.random,
        )

    def append(self, window: np.ndarray) -> None:
        """Store the filled window of the latest job."""
        start, _ = self.bounds()
        self.frames[start : start + len(window)] = window
        self.n_done += 1

    def codes(self) -> np.ndarray:
        """All codebooks of the generated frames, (codebooks, frames) int32."""
        return self.frames[self.n_history : self.n_history + self.n_frames].T


class LiveFineWindows:
    """The state of one fine generation whose coarse codes arrive over time, for streaming within a sentence.

    The fine network attends in both directions, so codes predicted before all input is known differ from FineWindows'.
    A window holds `past` frames, the frames that it finalizes, and `look_ahead` more, whose predictions are discarded:
    the next window predicts them. FineWindows pads a short window to full length; this does not, and so costs a
    fraction of an offline window. If all frames fit in the first window, the codes equal FineWindows'.

    Window bounds depend only on the number of frames, not on when they arrive: codes are the same single and batched.

    Args:
        history: (codebooks, m) codes of a voice, or None; they are put in front.
        look_ahead, past: frames in a window after those that it finalizes, and before them, if there are so many.
        hop: frames that the first window finalizes; each later window finalizes twice as many as the one before.
        max_hop: the most frames that a window finalizes; None for `hop`.

    Raises:
        InputError: lengths do not fit together.
    """

    def __init__(
        self,
        layout: Layout,
        sampling: Sampling,
        history: np.ndarray | None = None,
        *,
        look_ahead: int = LOOK_AHEAD,
        hop: int = HOP,
        max_hop: int | None = None,
        past: int = PAST,
        random: Any = None,
    ) -> None:
        self.layout, self.sampling, self.random = layout, sampling, random
        self.look_ahead, self.hop = look_ahead, hop
        self.max_hop = hop if max_hop is None else max_hop
        self.past = past
        self._check()
        self.n_given = layout.coarse.n_codebooks
        voice = np.zeros((layout.fine.n_codebooks, 0)) if history is None else history[:, -layout.fine.max_history :]
        self.n_history = voice.shape[1]
        # (frames, codebooks), unknown entries hold the pad id.
        self.frames = np.ascontiguousarray(voice.T, dtype=np.int32)
        self.n_final = 0
        self.final = False

    def _check(self) -> None:
        """Raise InputError for lengths that do not fit together."""
        window = self.layout.fine.window
        if self.past < 0:
            raise InputError(f"past is {self.past}; expected at least 0, in frames")
        if not 1 <= self.hop <= self.max_hop:
            raise InputError(f"hop is {self.hop} and max_hop {self.max_hop}; expected 1 <= hop <= max_hop, in frames")
        if not 0 <= self.look_ahead <= window - self.max_hop:
            raise InputError(
                f"look_ahead is {self.look_ahead}; expected 0 to {window - self.max_hop}, since it and max_hop "
                f"({self.max_hop}) share a window of {window} frames"
            )

    @property
    def n_known(self) -> int:
        """Frames whose coarse codes are known."""
        return len(self.frames) - self.n_history

    @property
    def done(self) -> bool:
        """Whether all frames are finalized and no more will come."""
        return self.final and self.n_final == self.n_known

    def grow(self, codes: np.ndarray, final: bool = False) -> None:
        """Append the next frames' codes of the given codebooks, (n, frames >= 0); `final` marks the last ones.

        Raises: InputError for another number of codebooks, or after the last frames.
        """
        if self.final:
            raise InputError("coarse codes came after those that were said to be the last")
        if codes.ndim != 2 or len(codes) != self.n_given:
            raise InputError(f"coarse codes have shape {codes.shape}; expected ({self.n_given}, frames)")
        fresh = np.full((codes.shape[1], self.frames.shape[1]), self.layout.codebook_size, dtype=np.int32)
        fresh[:, : self.n_given] = codes.T
        self.frames = np.concatenate([self.frames, fresh])
        self.final = final

    def bounds(self) -> tuple[int, int, int, int] | None:
        """The next window's start, the first frame it predicts, the end of the frames it finalizes, and its end.

        None while frames of the window are missing, and when all frames are finalized.
        """
        fill = self.n_history + self.n_final
        settled, end = fill + self.hop, fill + self.hop + self.look_ahead
        # One more frame must be known: otherwise these may be the last frames, which are finalized together.
        if len(self.frames) <= end:
            settled = end = len(self.frames)
            if not self.final or fill == end:
                return None
        past = self.n_history if self._is_whole else self.past
        return max(0, fill - past, end - self.layout.fine.window), fill, settled, end

    @property
    def _is_whole(self) -> bool:
        """Whether the next window is the only one."""
        return self.final and not self.n_final and self.n_known <= self.hop + self.look_ahead

    def next_job(self) -> FineJob | None:
        """The job for the next window; None while it must wait for more codes, and when it is `done`."""
        bounds = self.bounds()
        if bounds is None:
            return None
        start, fill, _, end = bounds
        length = self.layout.fine.window if self._is_whole else end - start
        window = np.full((length, self.frames.shape[1]), self.layout.codebook_size, dtype=np.int32)
        window[: end - start] = self.frames[start:end]
        return FineJob(
            window=window,
            first_frame=fill - start,
            first_codebook=self.n_given,
            codebook_size=self.layout.codebook_size,
            sampling=self.sampling,
            random=self.random,
        )

    def append(self, window: np.ndarray) -> np.ndarray:
        """Store the filled window of the latest job; return the codes that it finalizes, (codebooks, n) int32."""
        bounds = self.bounds()
        if bounds is None:
            raise InputError("a filled window came without a job that asked for it")
        start, fill, settled, _ = bounds
        self.frames[fill:settled] = window[fill - start : settled - start]
        self.n_final = settled - self.n_history
        self.hop = min(2 * self.hop, self.max_hop)
        return self.frames[fill:settled].T.copy()

    def codes(self) -> np.ndarray:
        """All codebooks of the frames finalized so far, (codebooks, frames) int32."""
        return self.frames[self.n_history : self.n_history + self.n_final].T
