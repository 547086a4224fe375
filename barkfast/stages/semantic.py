"""Text tokens -> one job for the semantic network."""

from typing import Any

import numpy as np

from barkfast.config import Layout, Sampling, SemanticLayout
from barkfast.jobs import Job, Stop


def lay_out_text(text_ids: np.ndarray, layout: SemanticLayout) -> np.ndarray:
    """Shift tokenizer ids into the network's vocabulary, and truncate or pad them to `n_slots`."""
    slots = np.full(layout.n_slots, layout.text_pad_token, dtype=np.int32)
    ids = np.asarray(text_ids, dtype=np.int32)[: layout.n_slots]
    slots[: len(ids)] = ids + layout.text_offset
    return slots


def lay_out_history(history: np.ndarray | None, layout: SemanticLayout) -> np.ndarray:
    """The last semantic tokens of a voice, padded on the right; only padding without a voice."""
    slots = np.full(layout.n_slots, layout.pad_token, dtype=np.int32)
    if history is not None:
        tail = history[-layout.n_slots :].astype(np.int32)
        slots[: len(tail)] = tail
    return slots


def count_steps(max_duration_s: float | None, layout: SemanticLayout) -> int:
    """Tokens until their duration exceeds `max_duration_s`; the one that exceeds it counts, as in the reference."""
    steps, duration = 0, 0.0
    while steps < layout.max_steps:
        steps += 1
        # Summed as in the reference: at exact multiples the last bit decides.
        duration += 1 / layout.rate_hz
        if max_duration_s is not None and duration > max_duration_s:
            break
    return steps


def semantic_job(
    text_ids: np.ndarray,
    layout: Layout,
    sampling: Sampling,
    *,
    history: np.ndarray | None = None,
    min_eos_p: float | None = None,
    max_duration_s: float | None = None,
    allow_early_stop: bool = True,
    random: Any = None,
) -> Job:
    """The semantic network's job for one text.

    Args:
        text_ids: (n,) tokenizer ids; those beyond the slots are cut.
        history: (m,) semantic tokens of a voice.
        min_eos_p: end when the end token's probability reaches this; None: end only when that token is drawn.
        max_duration_s: end when the speech is longer than this, in seconds.
        allow_early_stop: whether the end token can be drawn at all.
    """
    semantic = layout.semantic
    infer = np.array([semantic.infer_token], dtype=np.int32)
    return Job(
        prompt=np.concatenate([lay_out_text(text_ids, semantic), lay_out_history(history, semantic), infer]),
        steps=count_steps(max_duration_s, semantic),
        slices=((0, semantic.vocab_size),),
        sampling=sampling,
        stop=Stop(semantic.pad_token, min_eos_p) if allow_early_stop else None,
        n_merged=semantic.n_slots,
        random=random,
    )
