"""One utterance, stage after stage: text -> semantic tokens -> coarse codes -> fine codes -> waveform."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from barkfast.checks import check_kind
from barkfast.components import COMPONENTS, Components
from barkfast.config import Layout, Sampling
from barkfast.engine.generation import Generation
from barkfast.engine.request import Request
from barkfast.engine.shared import SharedScheduler
from barkfast.engine.task import CoarseTask, CodecTask, FineTask, SemanticTask, Task
from barkfast.errors import InputError
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
        components: the networks.
        voices: a folder of further voices.
    """

    def __init__(self, components: Components, voices: str | os.PathLike[str] | None = None) -> None:
        self.components = components
        self._voices = voices
        self._shared = SharedScheduler(components)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the weights, tokenizer and voices come from."""
        return self.components.checkpoint()

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
        for name in COMPONENTS:
            self.components.load(name)

    def load_voice(self, voice: Voice | None, parts: tuple[str, ...]) -> Mapping[str, np.ndarray] | None:
        """Find a voice by name, path or dict, and check the parts of it that are going to be used."""
        if voice is None:
            return None
        prompt = load_voice(voice, self.checkpoint, self._voices)
        if prompt is not None:
            check_voice(prompt, self.layout, parts)
        return prompt

    def speak_request(self, request: Request, silent: bool = True) -> Generation:
        """Speak a request; `silent` without progress bars."""
        # What is missing is told, and loaded, before anybody waits for it.
        self.load()
        with self._shared.open(1) as session, _Bars(silent) as bars:
            return session.wait(session.add(request), bars.show)

    def _run(self, task: Task, silent: bool = True) -> Any:
        """The result of one stage."""
        with self._shared.open(1) as session, _Bars(silent) as bars:
            session.add_task(task)
            return session.wait(task, bars.show)

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
        strict: bool = True,
    ) -> np.ndarray:
        """Text to (n,) int64 semantic tokens.

        Args:
            strict: refuse what `generate` refuses; False takes every number that `bark` does.
        """
        text = check_text(text)
        check_overflow(overflow)
        _check(sampling, strict, min_eos_p=min_eos_p, max_duration_s=max_duration_s)
        prompt = self.load_voice(voice, ("semantic",))
        tokenizer = self.components.load("text")["tokenizer"]
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
        return self._run(SemanticTask(job), silent)

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
        strict: bool = True,
    ) -> np.ndarray:
        """Semantic tokens (n,) to (2, frames) int32 codes. Args: `strict` as of `generate_semantic`."""
        _check(sampling, strict, max_duration_s=max_duration_s)
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
        return self._run(CoarseTask(windows), silent)

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
        return self._run(FineTask(windows), silent)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (up to 8 codebooks, frames) to (samples,) float32 audio."""
        check_tokens("codes", codes, 2, self.layout.codebook_size)
        return self._run(CodecTask(codes))


def _check(sampling: Sampling, strict: bool, **options: Any) -> None:
    """Refuse what no request takes, or, if not `strict`, what is no number. Errors: InputError."""
    if strict:
        Request("a", text_temp=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, **options)
        return
    for name, value in options.items():
        if not (isinstance(value, str) and value == "auto"):
            check_kind(name, value)


class _Bars:
    """A progress bar for each stage of a task that says how far it has come."""

    def __init__(self, silent: bool) -> None:
        # A process without a terminal may have no standard error.
        self._silent = silent or sys.stderr is None
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            # A text seldom needs all the tokens that it may have.
            bar.total = bar.n
            bar.close()

    def show(self, task: Task) -> None:
        """Show how far the task has come."""
        if self._silent:
            return
        from tqdm import tqdm

        for stage in ("semantic", "coarse", "fine"):
            done, total = task.progress(stage)
            if total and stage not in self._bars:
                self._bars[stage] = tqdm(total=total)
            if total:
                self._bars[stage].update(done - self._bars[stage].n)
