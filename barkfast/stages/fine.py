"""Coarse codes -> a chain of jobs for the fine network, one per overlapping window."""

import math
from typing import Any

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.jobs import FineJob

# Frames that a live window sees beyond those that it settles, that it settles first and at most, and that it sees in
# front of them. The first is due with one coarse window of 60 tokens, 30 frames; see docs/streaming.md.
LOOK_AHEAD, HOP, MAX_HOP, PAST = 15, 14, 112, 128


class FineWindows:
    """The state of one fine generation: hands out a job per window and takes the filled window back.

    Windows advance by max_history frames. The last one is aligned to the end, so frames that an earlier
    window filled are predicted again, with the earlier prediction as input: the reference does the same.

    Args:
        codes: (n, frames) codes of the first n codebooks.
        history: (codebooks, m) codes of a voice; its last `max_history` frames stand in front.
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
    def n_final(self) -> int:
        """Generated frames that no window still to come changes: they can be heard already."""
        if self.n_done == self.n_windows:
            return self.n_frames
        return max(0, self.bounds()[1] - self.n_history) if self.n_done else 0

    def next_job(self) -> FineJob | None:
        """The job for the next window, or None when all are done."""
        if self.n_done == self.n_windows:
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
        """Take the filled window of the job handed out last."""
        start, _ = self.bounds()
        self.frames[start : start + len(window)] = window
        self.n_done += 1

    def codes(self) -> np.ndarray:
        """All codebooks of the generated frames, (codebooks, frames) int32."""
        return self.frames[self.n_history : self.n_history + self.n_frames].T


class LiveFineWindows:
    """The state of one fine generation whose coarse codes are still coming: for a stream within a sentence.

    The fine network looks both ways, so what it fills before all codes are there differs from what FineWindows gives.
    A window holds `past` frames, those that it settles, and `look_ahead` more; what it predicts for these is thrown
    away, and predicted by the next one. It is as long as that and no longer, where FineWindows fills up what is short:
    so it costs a fraction of an offline window. Where everything fits the first window, the codes are FineWindows'.

    Where windows begin and end depends on the number of frames alone, never on how many were there when: a request
    gives the same codes alone and in company.

    Args:
        history: (codebooks, m) codes of a voice, or None; they stand in front.
        look_ahead: frames that a window sees beyond those that it settles, if there are as many.
        hop: frames that the first window settles; each window after it settles twice as many as the one before.
        max_hop: the most that a window settles; None for `hop`.
        past: frames that a window sees in front of those that it fills, if there are as many.
    Errors: InputError for lengths that do not fit together.
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
        """Refuse lengths that do not fit together."""
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
        """Frames whose coarse codes are there."""
        return len(self.frames) - self.n_history

    @property
    def done(self) -> bool:
        """Whether all frames are settled and none is to come."""
        return self.final and self.n_final == self.n_known

    def grow(self, codes: np.ndarray, final: bool = False) -> None:
        """Take the next frames' codes of the given codebooks, (n, frames), maybe none; `final`: these are the last.

        Errors: InputError for another number of codebooks, and after the last.
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
        """The next window's first frame, the first that it fills, that behind those it settles, and its end.

        None while its frames are not all there, and when all are settled.
        """
        fill = self.n_history + self.n_final
        settled, end = fill + self.hop, fill + self.hop + self.look_ahead
        # One more must be there: else these may turn out to be the last, which then are settled together.
        if len(self.frames) <= end:
            settled = end = len(self.frames)
            if not self.final or fill == end:
                return None
        past = self.n_history if self._is_whole else self.past
        return max(0, fill - past, end - self.layout.fine.window), fill, settled, end

    @property
    def _is_whole(self) -> bool:
        """Whether the next window is the first and the last."""
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
        """Take the filled window of the job handed out last; return the codes that it settles, (codebooks, n) int32."""
        bounds = self.bounds()
        if bounds is None:
            raise InputError("a filled window came without a job that asked for it")
        start, fill, settled, _ = bounds
        self.frames[fill:settled] = window[fill - start : settled - start]
        self.n_final = settled - self.n_history
        self.hop = min(2 * self.hop, self.max_hop)
        return self.frames[fill:settled].T.copy()

    def codes(self) -> np.ndarray:
        """All codebooks of the frames settled so far, (codebooks, frames) int32."""
        return self.frames[self.n_history : self.n_history + self.n_final].T
