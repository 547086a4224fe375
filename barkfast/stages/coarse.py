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
    """Semantic tokens of the same duration as `max_history` coarse tokens."""
    return math.floor(max_history / layout.coarse_per_semantic)


def trim_history(
    semantic: np.ndarray, coarse: np.ndarray, layout: Layout, max_history: int
) -> tuple[np.ndarray, np.ndarray]:
    """The end of a voice's semantic tokens (n,) and codes (codebooks, frames), matched in time.

    Returns semantic tokens and flat coarse token ids, int32. As in the reference the last two coarse tokens are
    dropped ("sounds better"), the coarse part may begin on the second codebook, and if no semantic token would
    remain, nothing is cut from the start of either.
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
    """Raise InputError for window settings that do not fit the network's positions."""
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
    """The state of one coarse generation: creates a job per window and takes its tokens.

    Semantic tokens may arrive later (`final=False`, then `grow`). A job is ready once its input is known: 47 tokens
    from the window's first one on with a full voice, 256 without a voice. Tokens that arrive later do not change it.

    Args:
        semantic: (n,) semantic tokens to synthesize, n >= 1, or n >= 0 with `final=False`.
        history: a voice's semantic tokens (m,) and codes (codebooks, frames), if any.
        max_history, sliding_window: tokens of context, and new tokens, per window; None for the layout's.
        max_duration_s: at most this many seconds.
        final: whether no more semantic tokens will come.

    Raises:
        InputError: settings do not fit, or all tokens together give no frame.
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
        final: bool = True,
    ) -> None:
        self.layout, self.sampling, self.random = layout, sampling, random
        self.max_history = layout.coarse.max_history if max_history is None else max_history
        self.sliding_window = layout.coarse.sliding_window if sliding_window is None else sliding_window
        self.max_duration_s = max_duration_s
        check_windows(self.max_history, self.sliding_window, layout)
        empty = np.zeros(0, np.int32)
        past, codes = (empty, empty) if history is None else trim_history(*history, layout, self.max_history)
        self.n_semantic_history, self.n_coarse_history = len(past), len(codes)
        self.semantic = past.astype(np.int32)
        self.tokens = codes.astype(np.int32)
        self.final = False
        self._previous: Job | None = None
        self.grow(semantic, final)

    def grow(self, semantic: np.ndarray, final: bool = False) -> None:
        """Append the next (n,) semantic tokens, n >= 0; `final` marks the last ones.

        Raises: InputError after the last ones, or if all tokens together give no frame.
        """
        if self.final:
            raise InputError("semantic tokens came after those that were said to be the last")
        self.semantic = np.concatenate([self.semantic, semantic]).astype(np.int32)
        self.final = final
        self.n_steps = count_steps(self.n_semantic, self.layout, self.max_duration_s)
        if final and self.n_steps == 0:
            raise InputError(
                f"{self.n_semantic} semantic tokens and max_gen_duration_s={self.max_duration_s} leave no audio frame; "
                "give a longer input"
            )

    @property
    def n_semantic(self) -> int:
        """Semantic tokens received so far; the voice's are not counted."""
        return len(self.semantic) - self.n_semantic_history

    @property
    def n_windows(self) -> int:
        """Windows for the semantic tokens received so far."""
        return math.ceil(self.n_steps / self.sliding_window)

    @property
    def n_done(self) -> int:
        """Coarse tokens generated so far."""
        return len(self.tokens) - self.n_coarse_history

    @property
    def done(self) -> bool:
        """Whether all semantic tokens are known and all coarse tokens are generated."""
        return self.final and self.n_done >= self.n_steps

    def _first_slot(self) -> int:
        """The index of the semantic token in the next window's first slot."""
        position = self.n_semantic_history + round(self.n_done / self.layout.coarse_per_semantic)
        return max(0, position - max_semantic_history(self.max_history, self.layout))

    def _has_all(self) -> bool:
        """Whether all input of the next window is known: later semantic tokens cannot change it."""
        if self.final:
            return True
        whole = self.n_steps - self.n_done >= self.sliding_window
        return whole and len(self.semantic) >= self._first_slot() + self.layout.coarse.n_slots

    def prompt(self) -> np.ndarray:
        """The next window's prompt: semantic slots, the infer token, and the latest coarse tokens."""
        coarse, start = self.layout.coarse, self._first_slot()
        slots = np.full(coarse.n_slots, coarse.semantic_pad_token, dtype=np.int32)
        visible = self.semantic[start : start + coarse.n_slots]
        slots[: len(visible)] = visible
        return np.concatenate([slots, [coarse.infer_token], self.tokens[-self.max_history :]]).astype(np.int32)

    def next_job(self) -> Job | None:
        """The job for the next window; None when all tokens are generated, and while semantic tokens are missing."""
        if self.n_done >= self.n_steps or not self._has_all():
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
            continues_from=self._previous if self._continues_previous(prompt) else None,
            random=self.random,
        )
        self._previous = job
        return job

    def _continues_previous(self, prompt: np.ndarray) -> bool:
        """Whether `prompt` is the previous prompt followed by its window's tokens: the context did not slide."""
        if self._previous is None:
            return False
        before = self._previous.prompt
        return len(prompt) == len(before) + self._previous.steps and bool((prompt[: len(before)] == before).all())

    def append(self, tokens: np.ndarray) -> None:
        """Append the tokens of the latest job."""
        self.tokens = np.concatenate([self.tokens, tokens]).astype(np.int32)

    def codes(self) -> np.ndarray:
        """The generated codes, (codebooks, frames) int32."""
        return unflatten_codes(self.tokens[self.n_coarse_history :], self.layout)
