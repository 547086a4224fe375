"""The pipeline: text -> semantic tokens -> coarse codes -> fine codes -> waveform."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from barkfast.audio import write_audio
from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.parts import PARTS, Parts
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.text import check_text
from barkfast.voices import check_voice, load_voice, save_voice
from barkfast.weights import Checkpoint

logger = logging.getLogger(__name__)

Voice = str | os.PathLike[str] | Mapping[str, np.ndarray]
Overflow = Literal["cut", "error"]


@dataclass(frozen=True)
class Generation:
    """One utterance, with all that led to it.

    Args:
        audio: (samples,) float32, about -1..1; single peaks may lie beyond.
        sample_rate: samples per second.
        semantic: (n,) int64 semantic tokens.
        coarse: (2, frames) int32 codes.
        fine: (8, frames) int32 codes.
        timings: seconds spent in each stage: semantic, coarse, fine, codec.
    """

    audio: np.ndarray
    sample_rate: int
    semantic: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Length of the audio in seconds."""
        return len(self.audio) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio; below 1 is faster than speech."""
        return sum(self.timings.values()) / self.duration

    @property
    def prompt(self) -> dict[str, np.ndarray]:
        """The tokens under the keys of a history prompt, to be used as a voice."""
        return {"semantic_prompt": self.semantic, "coarse_prompt": self.coarse, "fine_prompt": self.fine}

    def save(self, path: str | os.PathLike[str], subtype: str | None = None) -> None:
        """Write the audio; the suffix names the format (wav, flac, ogg, mp3)."""
        write_audio(path, self.audio, self.sample_rate, subtype=subtype)


class Bark:
    """A Bark model, ready to speak.

    Args:
        model: a name or path: a hub id ("suno/bark", "suno/bark-small"), a folder, "demo", "random:nano".
            None for $BARKFAST_MODEL, else Suno's models as `bark` finds them.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, float32, bfloat16, float16, int8 (matrices; cpu and cuda engines), int4 (matrices; cpu engine).
        engine: auto, torch, cpu or cuda; `barkfast info` says which are present.
        small: the small networks, where the model has both.
        codec: a file or folder with EnCodec's weights; None for the model's own, else wherever they are found.
        tokenizer: a folder, tokenizer.json or vocab.txt.
        voices: a folder of further voices.

    Networks are loaded when first needed, or all at once by `load()`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        engine: str = "auto",
        small: bool = False,
        codec: str | os.PathLike[str] | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        voices: str | os.PathLike[str] | None = None,
    ) -> None:
        self.parts = Parts(
            model, device=device, dtype=dtype, engine=engine, small=small, codec=codec, tokenizer=tokenizer
        )
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

    def save_voice(self, path: str | os.PathLike[str], generation: Generation) -> None:
        """Save an utterance as a voice, an .npz that `voice=` and the reference's `history_prompt=` take."""
        save_voice(path, generation.prompt)

    def generate(
        self,
        text: str,
        voice: Voice | None = None,
        *,
        seed: Seed = None,
        text_temp: float | None = 0.7,
        waveform_temp: float | None = 0.7,
        fine_temp: float | None = 0.5,
        top_k: int | None = None,
        top_p: float | None = None,
        min_eos_p: float | None | Literal["auto"] = "auto",
        max_duration_s: float | None = None,
        overflow: Overflow = "cut",
        silent: bool = True,
    ) -> Generation:
        """Speak `text`.

        Args:
            text: up to 256 tokens, about 13 seconds of speech.
            voice: a name ("v2/en_speaker_6"), an .npz file, or a dict of the three prompts.
            seed: the same seed gives the same audio; None draws from torch's global generator.
            text_temp, waveform_temp, fine_temp: temperature of each stage; 0 is greedy.
            top_k, top_p: filters for the semantic and coarse stage; None is off.
            min_eos_p: end when the end token is this likely; "auto" for the model's value, None for only when drawn.
            max_duration_s: end after this many seconds.
            overflow: "cut" a text of more than 256 tokens, with a warning, or raise an "error".
            silent: no progress bars.
        """
        text, random = check_text(text), Randomness.of(seed)
        _check_overflow(overflow)
        text_sampling, waveform_sampling = Sampling(text_temp, top_k, top_p), Sampling(waveform_temp, top_k, top_p)
        fine_sampling = Sampling(fine_temp)
        prompt = self.load_voice(voice, ("semantic", "coarse", "fine"))
        self.load()
        timings: dict[str, float] = {}

        def timed(stage: str, work: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = work(*args, **kwargs)
            timings[stage] = time.perf_counter() - start
            return result

        semantic = timed(
            "semantic",
            self.generate_semantic,
            text,
            prompt,
            text_sampling,
            min_eos_p=min_eos_p,
            max_duration_s=max_duration_s,
            overflow=overflow,
            seed=random,
            silent=silent,
        )
        coarse = timed(
            "coarse",
            self.generate_coarse,
            semantic,
            prompt,
            waveform_sampling,
            seed=random,
            silent=silent,
        )
        fine = timed("fine", self.generate_fine, coarse, prompt, fine_sampling, seed=random)
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
        _check_overflow(overflow)
        prompt = self.load_voice(voice, ("semantic",))
        with self.parts.using("text") as decoder:
            job = semantic_job(
                self._text_ids(text, overflow),
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

    def _text_ids(self, text: str, overflow: Overflow) -> np.ndarray:
        ids = self.parts.models["text"]["tokenizer"].encode(text)
        slots = self.layout.semantic.n_slots
        if len(ids) > slots:
            if overflow == "error":
                raise InputError(f"the text has {len(ids)} tokens and {slots} fit; split it into shorter pieces")
            share = round((len(ids) - slots) / len(ids) * 100, 1)
            logger.warning("warning, text too long, lopping of last %s%%", share)
        return np.array(ids[:slots], dtype=np.int32)

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
        _check_tokens("semantic tokens", semantic, 1, self.layout.semantic.vocab_size)
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
        _check_tokens("coarse codes", coarse, 2, self.layout.codebook_size)
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
        _check_tokens("codes", codes, 2, self.layout.codebook_size)
        with self.parts.using("codec") as codec:
            return codec.decode(codes)


def _check_overflow(overflow: str) -> None:
    if overflow not in ("cut", "error"):
        raise InputError(f"overflow is {overflow!r}; expected 'cut' or 'error'")


def _check_tokens(what: str, tokens: Any, ndim: int, end: int) -> None:
    """Refuse anything but a non-empty integer array of ids below `end`."""
    if not isinstance(tokens, np.ndarray) or tokens.ndim != ndim or tokens.dtype.kind not in "iu":
        kind = f"{tokens.dtype} array of shape {tokens.shape}" if isinstance(tokens, np.ndarray) else type(tokens)
        raise InputError(f"{what} are a {kind}; expected an integer numpy array with {ndim} dimension(s)")
    if tokens.size == 0:
        raise InputError(f"{what} are empty: the stage before produced nothing; try another seed or a longer text")
    if tokens.min() < 0 or tokens.max() >= end:
        raise InputError(f"{what} hold values from {tokens.min()} to {tokens.max()}; expected 0 to {end - 1}")


def _progress(total: int, silent: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, disable=silent)
