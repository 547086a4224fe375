"""Semantic tokens -> a chain of jobs for the coarse network, one per sliding window."""

import math
from typing import Any

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.jobs import Job


def flatten_codes(codes: np.ndarray, layout: Layout) -> np.ndarray:
    """Interleave (codebooks, frames) codes into one row of the network's token ids: c0 c1 c0 c1 ..."""
    offsets = layout.semantic.vocab_size + layout.codebook_size * np.arange(len(codes), dtype=np.int32)
    return (codes.astype(np.int32) + offsets[:, None]).ravel("F")


def unflatten_codes(tokens: np.ndarray, layout: Layout) -> np.ndarray:
    """Undo `flatten_codes`: (n,) token ids -> (codebooks, n / codebooks) int32 codes."""
    n_codebooks = layout.coarse.n_codebooks
    offsets = layout.semantic.vocab_size + layout.codebook_size * np.arange(n_codebooks, dtype=np.int32)
    return tokens.reshape(-1, n_codebooks).T - offsets[:, None]


def max_semantic_history(max_history: int, layout: Layout) -> int:
    """Semantic tokens that stand for `max_history` coarse tokens."""
    return math.floor(max_history / layout.coarse_per_semantic)


def trim_history(
    semantic: np.ndarray, coarse: np.ndarray, layout: Layout, max_history: int
) -> tuple[np.ndarray, np.ndarray]:
    """The end of a voice's semantic tokens (n,) and codes (codebooks, frames), matched in time.

    Returns semantic tokens and flat coarse token ids, int32. As in the reference the last two coarse tokens are
    dropped ("sounds better"), the coarse part may begin on the second codebook, and where nothing is left of the
    semantic part both are kept whole.
    """
    ratio = layout.coarse_per_semantic
    flat = flatten_codes(coarse, layout)
    n_semantic = min(
        max_semantic_history(max_history, layout),
        len(semantic) - len(semantic) % 2,
        math.floor(len(flat) / ratio),
    )
    n_coarse = round(n_semantic * ratio)
    return semantic[-n_semantic:].astype(np.int32), flat[-n_coarse:][:-2]


def count_steps(n_semantic: int, layout: Layout, max_duration_s: float | None = None) -> int:
    """Flat coarse tokens for `n_semantic` semantic tokens: whole frames, rounded down."""
    frames = math.floor(n_semantic * layout.coarse_per_semantic / layout.coarse.n_codebooks)
    if max_duration_s is not None:
        frames = min(frames, round(max_duration_s * layout.coarse.rate_hz))
    return frames * layout.coarse.n_codebooks


def check_windows(max_history: int, sliding_window: int, layout: Layout) -> None:
    """Refuse window settings that the network's positions cannot hold."""
    low, high = 60, layout.coarse.max_history
    if not min(low, high) <= max_history <= high:
        raise InputError(f"max_coarse_history is {max_history}; expected {min(low, high)} (fast) to {high} (faithful)")
    room = layout.coarse.n_positions - layout.coarse.n_slots
    if sliding_window < 1 or max_history + sliding_window > room:
        raise InputError(
            f"sliding_window_len is {sliding_window}; expected 1 to {room - max_history}, "
            f"since it and max_coarse_history ({max_history}) share {room} positions"
        )


class CoarseWindows:
    """The state of one coarse generation: hands out a job per window and takes its tokens.

    Args:
        semantic: (n,) semantic tokens to be voiced, n >= 1.
        history: a voice's semantic tokens (m,) and codes (codebooks, frames), if any.
        max_history: coarse tokens of context per window; None for the layout's.
        sliding_window: tokens per window; None for the layout's.
        max_duration_s: at most this many seconds.
    """

    def __init__(
        self,
        semantic: np.ndarray,
        layout: Layout,
        sampling: Sampling,
        *,
        history: tuple[np.ndarray, np.ndarray] | None = None,
        max_history: int | None = None,
        sliding_window: int | None = None,
        max_duration_s: float | None = None,
        random: Any = None,
    ) -> None:
        self.layout, self.sampling, self.random = layout, sampling, random
        self.max_history = layout.coarse.max_history if max_history is None else max_history
        self.sliding_window = layout.coarse.sliding_window if sliding_window is None else sliding_window
        check_windows(self.max_history, self.sliding_window, layout)
        empty = np.zeros(0, np.int32)
        past, codes = (empty, empty) if history is None else trim_history(*history, layout, self.max_history)
        self.semantic = np.concatenate([past, semantic]).astype(np.int32)
        self.n_semantic_history, self.n_coarse_history = len(past), len(codes)
        self.n_steps = count_steps(len(semantic), layout, max_duration_s)
        if self.n_steps == 0:
            raise InputError(
                f"{len(semantic)} semantic tokens and max_gen_duration_s={max_duration_s} leave no audio frame; "
                "give a longer input"
            )
        self.n_windows = math.ceil(self.n_steps / self.sliding_window)
        self.tokens = codes.astype(np.int32)
        self._previous: Job | None = None

    @property
    def n_done(self) -> int:
        """Coarse tokens generated so far."""
        return len(self.tokens) - self.n_coarse_history

    def prompt(self) -> np.ndarray:
        """The next window's prompt: semantic slots, the infer token, and the latest coarse tokens."""
        coarse, ratio = self.layout.coarse, self.layout.coarse_per_semantic
        position = self.n_semantic_history + round(self.n_done / ratio)
        start = max(0, position - max_semantic_history(self.max_history, self.layout))
        slots = np.full(coarse.n_slots, coarse.semantic_pad_token, dtype=np.int32)
        visible = self.semantic[start : start + coarse.n_slots]
        slots[: len(visible)] = visible
        return np.concatenate([slots, [coarse.infer_token], self.tokens[-self.max_history :]]).astype(np.int32)

    def next_job(self) -> Job | None:
        """The job for the next window, or None when all tokens are there."""
        if self.n_done >= self.n_steps:
            return None
        size, first = self.layout.codebook_size, self.layout.semantic.vocab_size
        n_codebooks = self.layout.coarse.n_codebooks
        books = [(self.n_done + i) % n_codebooks for i in range(n_codebooks)]
        prompt = self.prompt()
        job = Job(
            prompt=prompt,
            steps=min(self.sliding_window, self.n_steps - self.n_done),
            slices=tuple((first + k * size, first + (k + 1) * size) for k in books),
            sampling=self.sampling,
            extends=self._previous if self._extends_previous(prompt) else None,
            random=self.random,
        )
        self._previous = job
        return job

    def _extends_previous(self, prompt: np.ndarray) -> bool:
        """Whether `prompt` is the previous window's prompt with that window's tokens behind it, and nothing slid."""
        if self._previous is None:
            return False
        before = self._previous.prompt
        return len(prompt) == len(before) + self._previous.steps and bool((prompt[: len(before)] == before).all())

    def append(self, tokens: np.ndarray) -> None:
        """Take the tokens of the job handed out last."""
        self.tokens = np.concatenate([self.tokens, tokens]).astype(np.int32)

    def codes(self) -> np.ndarray:
        """The generated codes, (codebooks, frames) int32."""
        return unflatten_codes(self.tokens[self.n_coarse_history :], self.layout)
