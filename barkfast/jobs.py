"""Jobs, the requests of a stage to a runtime: plain data, numpy only.

A stage (barkfast.stages) turns the data so far into jobs; a runtime (barkfast.runtime) turns jobs into tokens.
Neither depends on the other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from barkfast.config import Sampling


@dataclass(frozen=True, slots=True)
class Stop:
    """End a job when `token` is drawn, or when its probability (after filters and temperature) reaches `min_p`."""

    token: int
    min_p: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Tokens for a GPT to generate.

    Args:
        prompt: (length,) int32 token ids, laid out as the network expects.
        steps: at most this many new tokens.
        slices: vocabulary ranges [first, end) allowed at step i, taken cyclically.
        sampling: how to draw.
        stop: when to end early; the stop token competes in every draw and is not part of the result.
        n_merged: the first `n_merged` prompt tokens and the next `n_merged` are embedded and summed pairwise
            (the semantic prompt: text and history); 0 for none.
        continues_from: the job whose prompt plus tokens are this prompt, so that its KV cache can be reused; or None.
        random: the source of random numbers; made by barkfast.runtime, opaque to the stage.
    """

    prompt: np.ndarray
    steps: int
    slices: tuple[tuple[int, int], ...]
    sampling: Sampling
    stop: Stop | None = None
    n_merged: int = 0
    continues_from: "Job | None" = None
    random: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class FineJob:
    """One window for the fine network to fill.

    Args:
        window: (frames, codebooks) int32; unknown entries hold the pad id (the codebook size).
        first_frame: frames before this are context and stay as they are.
        first_codebook: codebooks from here on are predicted, in order, each seeing those before it.
        codebook_size: ids allowed, 0..codebook_size-1.
        sampling: how to draw (temperature only).
        random: as in `Job`.
    """

    window: np.ndarray
    first_frame: int
    first_codebook: int
    codebook_size: int
    sampling: Sampling
    random: Any = None
