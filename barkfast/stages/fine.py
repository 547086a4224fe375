"""Coarse codes -> a chain of jobs for the fine network, one per overlapping window."""

import math
from typing import Any

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.jobs import FineJob


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
