"""One utterance, stage after stage: text -> semantic tokens -> coarse codes -> fine codes -> waveform."""

import os
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.engine.generation import Generation
from barkfast.engine.request import Request
from barkfast.errors import InputError
from barkfast.parts import PARTS, Parts
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.stages.check import check_tokens
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.text import Overflow, check_overflow, check_text, fit_text
from barkfast.voices import check_voice, load_voice
from barkfast.weights import Checkpoint

Voice = str | os.PathLike[str] | Mapping[str, np.ndarray]


class Pipeline:
    """The stages of a model, to be called one by one.

    Args:
        parts: the networks.
        voices: a folder of further voices.
    """

    def __init__(self, parts: Parts, voices: str | os.PathLike[str] | None = None) -> None:
        self.parts = parts
        self._voices = voices

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the weights, tokenizer and voices come from."""
        return self.parts.checkpoint()

    @property
    def layout(self) -> Layout:
        """Token ids, rates and window lengths of the model."""
        return self.checkpoint.layout

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self.layout.sample_rate

    def load(self) -> None:
        """Load all four networks now."""
        for part in PARTS:
            self.parts.load(part)

    def load_voice(self, voice: Voice | None, parts: tuple[str, ...]) -> Mapping[str, np.ndarray] | None:
        """Find a voice by name, path or dict, and check the parts of it that are going to be used."""
        if voice is None:
            return None
        prompt = load_voice(voice, self.checkpoint, self._voices)
        if prompt is not None:
            check_voice(prompt, self.layout, parts)
        return prompt

    def speak_request(self, request: Request, silent: bool) -> Generation:
        """Speak a request that nobody else's work is mixed with; `silent` without progress bars."""
        timings: dict[str, float] = {}

        def timed(stage: str, work: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = work(*args, **kwargs)
            timings[stage] = time.perf_counter() - start
            return result

        semantic = timed(
            "semantic",
            self.generate_semantic,
            request.text,
            request.voice,
            request.text_sampling,
            min_eos_p=request.min_eos_p,
            max_duration_s=request.max_duration_s,
            overflow=request.overflow,
            seed=request.seed,
            silent=silent,
        )
        coarse = timed(
            "coarse",
            self.generate_coarse,
            semantic,
            request.voice,
            request.waveform_sampling,
            seed=request.seed,
            silent=silent,
        )
        fine = timed(
            "fine",
            self.generate_fine,
            coarse,
            request.voice,
            request.fine_sampling,
            seed=request.seed,
        )
        audio = timed("codec", self.decode, fine)
        return Generation(audio, self.sample_rate, semantic, coarse, fine, timings)

    def generate_semantic(
        self,
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
    ) -> np.ndarray:
        """Text to (n,) int64 semantic tokens."""
        text = check_text(text)
        check_overflow(overflow)
        prompt = self.load_voice(voice, ("semantic",))
        with self.parts.using("text") as decoder:
            tokenizer = self.parts.models["text"]["tokenizer"]
            job = semantic_job(
                np.array(fit_text(text, tokenizer, self.layout.semantic.n_slots, overflow), dtype=np.int32),
                self.layout,
                sampling,
                history=None if prompt is None else prompt["semantic_prompt"],
                min_eos_p=self.layout.semantic.min_eos_p if min_eos_p == "auto" else min_eos_p,
                max_duration_s=max_duration_s,
                allow_early_stop=allow_early_stop,
                random=Randomness.of(seed),
            )
            with _progress(self.layout.semantic.max_steps, silent) as bar:
                (tokens,) = decoder.run([job], on_token=lambda _, n: bar.update(n - bar.n))
                bar.total = len(tokens)
                bar.refresh()
        return tokens.astype(np.int64)

    def generate_coarse(
        self,
        semantic: np.ndarray,
        voice: Voice | None = None,
        sampling: Sampling = Sampling(0.7),
        *,
        max_history: int | None = None,
        sliding_window: int | None = None,
        max_duration_s: float | None = None,
        seed: Seed = None,
        silent: bool = True,
    ) -> np.ndarray:
        """Semantic tokens (n,) to (2, frames) int32 codes."""
        check_tokens("semantic tokens", semantic, 1, self.layout.semantic.vocab_size)
        prompt = self.load_voice(voice, ("semantic", "coarse"))
        windows = CoarseWindows(
            semantic,
            self.layout,
            sampling,
            history=None if prompt is None else (prompt["semantic_prompt"], prompt["coarse_prompt"]),
            max_history=max_history,
            sliding_window=sliding_window,
            max_duration_s=max_duration_s,
            random=Randomness.of(seed),
        )
        with self.parts.using("coarse") as decoder, _progress(windows.n_windows, silent) as bar:
            while (job := windows.next_job()) is not None:
                windows.append(decoder.run([job])[0])
                bar.update(1)
        return windows.codes()

    def generate_fine(
        self,
        coarse: np.ndarray,
        voice: Voice | None = None,
        sampling: Sampling = Sampling(0.5),
        *,
        seed: Seed = None,
        silent: bool = True,
    ) -> np.ndarray:
        """The first n codebooks (n, frames) to (8, frames) int32 codes."""
        check_tokens("coarse codes", coarse, 2, self.layout.codebook_size)
        n_codebooks = self.layout.fine.n_codebooks
        if not 1 <= len(coarse) < n_codebooks:
            raise InputError(f"coarse codes have {len(coarse)} codebooks; expected 1 to {n_codebooks - 1}")
        prompt = self.load_voice(voice, ("fine",))
        history = None if prompt is None else prompt["fine_prompt"]
        windows = FineWindows(coarse, self.layout, sampling, history=history, random=Randomness.of(seed))
        with self.parts.using("fine") as refiner, _progress(windows.n_windows, silent) as bar:
            while (job := windows.next_job()) is not None:
                windows.append(refiner.refine(job))
                bar.update(1)
        return windows.codes()

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (up to 8 codebooks, frames) to (samples,) float32 audio."""
        check_tokens("codes", codes, 2, self.layout.codebook_size)
        with self.parts.using("codec") as codec:
            return codec.decode(codes)


def _progress(total: int, silent: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, disable=silent)
