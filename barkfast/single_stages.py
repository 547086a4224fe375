"""The stages one by one, as `bark` has them: text to semantic tokens, to coarse codes, to fine codes, to samples."""

from typing import Any, Literal

import numpy as np

from barkfast.checks import check_kind, check_tokens
from barkfast.config import Sampling
from barkfast.engine.shared import Model, Voice
from barkfast.engine.utterance import Utterance
from barkfast.errors import InputError
from barkfast.jobs import Job
from barkfast.options import Request
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.text import Overflow, check_overflow, check_text, fit_text


def _run(model: Model, start: Job | CoarseWindows | FineWindows | np.ndarray, silent: bool = True) -> Any:
    """The result of one stage."""
    with model.scheduler(1) as session:
        utterance = Utterance(None, model.layout, start=start)
        session.add_utterance(utterance)
        return session.wait(utterance, silent)


def generate_semantic(
    model: Model,
    text: str,
    voice: Voice | None = None,
    sampling: Sampling = Sampling(0.7),
    *,
    min_eos_p: float | None | Literal["auto"] = "auto",
    max_duration_s: float | None = None,
    allow_early_stop: bool = True,
    overflow: Overflow = "cut",
    seed: Seed = None,
    silent: bool = True,
    strict: bool = True,
) -> np.ndarray:
    """Text to (n,) int64 semantic tokens.

    Args:
        strict: refuse what `generate` refuses; False takes every number that `bark` does.
    """
    text = check_text(text)
    check_overflow(overflow)
    _check(sampling, strict, min_eos_p=min_eos_p, max_duration_s=max_duration_s)
    prompt = model.load_voice(voice, ("semantic",))
    tokenizer = model.tokenizer
    job = semantic_job(
        np.array(fit_text(text, tokenizer, model.layout.semantic.n_slots, overflow), dtype=np.int32),
        model.layout,
        sampling,
        history=None if prompt is None else prompt["semantic_prompt"],
        min_eos_p=model.layout.semantic.min_eos_p if min_eos_p == "auto" else min_eos_p,
        max_duration_s=max_duration_s,
        allow_early_stop=allow_early_stop,
        random=Randomness.of(seed),
    )
    return _run(model, job, silent)


def generate_coarse(
    model: Model,
    semantic: np.ndarray,
    voice: Voice | None = None,
    sampling: Sampling = Sampling(0.7),
    *,
    max_history: int | None = None,
    sliding_window: int | None = None,
    max_duration_s: float | None = None,
    seed: Seed = None,
    silent: bool = True,
    strict: bool = True,
) -> np.ndarray:
    """Semantic tokens (n,) to (2, frames) int32 codes. Args: `strict` as of `generate_semantic`."""
    _check(sampling, strict, max_duration_s=max_duration_s)
    check_tokens("semantic tokens", semantic, 1, model.layout.semantic.vocab_size)
    prompt = model.load_voice(voice, ("semantic", "coarse"))
    windows = CoarseWindows(
        semantic,
        model.layout,
        sampling,
        history=None if prompt is None else (prompt["semantic_prompt"], prompt["coarse_prompt"]),
        max_history=max_history,
        sliding_window=sliding_window,
        max_duration_s=max_duration_s,
        random=Randomness.of(seed),
    )
    return _run(model, windows, silent)


def generate_fine(
    model: Model,
    coarse: np.ndarray,
    voice: Voice | None = None,
    sampling: Sampling = Sampling(0.5),
    *,
    seed: Seed = None,
    silent: bool = True,
) -> np.ndarray:
    """The first n codebooks (n, frames) to (8, frames) int32 codes."""
    check_tokens("coarse codes", coarse, 2, model.layout.codebook_size)
    n_codebooks = model.layout.fine.n_codebooks
    if not 1 <= len(coarse) < n_codebooks:
        raise InputError(f"coarse codes have {len(coarse)} codebooks; expected 1 to {n_codebooks - 1}")
    prompt = model.load_voice(voice, ("fine",))
    history = None if prompt is None else prompt["fine_prompt"]
    windows = FineWindows(coarse, model.layout, sampling, history=history, random=Randomness.of(seed))
    return _run(model, windows, silent)


def decode(model: Model, codes: np.ndarray) -> np.ndarray:
    """Codes (up to 8 codebooks, frames) to (samples,) float32 audio."""
    check_tokens("codes", codes, 2, model.layout.codebook_size)
    return _run(model, codes)


def _check(sampling: Sampling, strict: bool, **options: Any) -> None:
    """Refuse what no request takes, or, if not `strict`, what is no number. Raises: InputError."""
    if strict:
        Request("a", text_temp=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, **options)
        return
    for name, value in options.items():
        if not (isinstance(value, str) and value == "auto"):
            check_kind(name, value)
