"""What the engine is asked and what it gives back: a Request goes in; AudioChunk, Done and Failed events come out."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from barkfast.audio import write_audio
from barkfast.checks import check_number, check_seed, check_whole, show
from barkfast.config import Layout, Sampling
from barkfast.errors import BarkfastError, InputError
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.stages.check import check_tokens
from barkfast.text import Overflow, check_overflow, check_text
from barkfast.voices import check_voice

# How audio is returned: all at the end; in chunks, with the samples of "off"; in chunks as early as possible, with fine
# codes that differ from those of "off" (see barkfast.stages.fine.LiveFineWindows).
Streaming = Literal["off", "exact", "low_latency"]


@dataclass(frozen=True, eq=False)
class Request:
    """One utterance to generate. It can be used any number of times, except with a `Randomness` as its seed.

    All arguments are checked here. Python and numpy numbers become plain ones.

    Args:
        text: up to 256 tokens, about 13 seconds of speech; None where `semantic` is given.
        voice: the three arrays of a voice, as `Bark.load_voice` returns them.
        seed: the same seed gives the same tokens, single or batched; None draws from torch's global generator.
        text_temp, waveform_temp, fine_temp: temperature of each stage; 0 or None is greedy.
        top_k, top_p: filters for the semantic and coarse stage, from 1 and in (0, 1]; None is off.
        min_eos_p: end when the end token has this probability, in (0, 1]; "auto" for the model's value, None to end
            only when it is drawn.
        max_duration_s: end after this many seconds.
        overflow: "cut" a text that is too long, with a warning, or raise an "error".
        stream: "off", "exact" or "low_latency", see `Streaming`.
        priority: of two requests with the same deadline, the one of higher priority goes first.
        deadline: in seconds of time.monotonic(). Earlier deadlines are served first. Nothing ends when it passes.
        semantic: (n,) semantic tokens to synthesize, instead of a text.

    Raises:
        InputError: an argument is not one of the above.
    """

    text: str | None
    voice: Mapping[str, np.ndarray] | None = None
    seed: Seed = None
    text_temp: float | None = 0.7
    waveform_temp: float | None = 0.7
    fine_temp: float | None = 0.5
    top_k: int | None = None
    top_p: float | None = None
    min_eos_p: float | None | Literal["auto"] = "auto"
    max_duration_s: float | None = None
    overflow: Overflow = "cut"
    stream: Streaming = "off"
    priority: int = 0
    deadline: float | None = None
    semantic: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.semantic is None:
            self._set("text", check_text(self.text))
        elif self.text is not None:
            raise InputError("a request has a text and semantic tokens; expected one of them")
        for name in ("text_temp", "waveform_temp", "fine_temp"):
            self._number(name, "0 (greedy) or a positive number, e.g. 0.7", least=0)
        if self.top_k is not None:
            self._set("top_k", check_whole("top_k", self.top_k, "a whole number of at least 1, or None", least=1))
        self._number("top_p", "a number above 0 and up to 1, or None", least=0, most=1, open_=True)
        if not (isinstance(self.min_eos_p, str) and self.min_eos_p == "auto"):
            self._number("min_eos_p", "a number above 0 and up to 1, 'auto' or None", least=0, most=1, open_=True)
        self._number("max_duration_s", "a positive number of seconds, or None", least=0, open_=True)
        check_overflow(self.overflow)
        if not isinstance(self.stream, str) or self.stream not in get_args(Streaming):
            raise InputError(f"stream is {show(self.stream)}; expected {', '.join(map(repr, get_args(Streaming)))}")
        self._set("priority", check_whole("priority", self.priority, "a whole number, more of it for sooner"))
        self._number("deadline", "seconds of time.monotonic(), or None")
        if not isinstance(self.seed, Randomness):
            self._set("seed", check_seed(self.seed))

    def _number(self, name: str, expected: str, **bounds: Any) -> None:
        value = getattr(self, name)
        if value is not None:
            self._set(name, check_number(name, value, expected, **bounds))

    def _set(self, name: str, value: Any) -> None:
        # The dataclass is frozen for everyone else.
        object.__setattr__(self, name, value)

    @property
    def text_sampling(self) -> Sampling:
        """How the semantic stage draws."""
        return Sampling(self.text_temp, self.top_k, self.top_p)

    @property
    def waveform_sampling(self) -> Sampling:
        """How the coarse stage draws."""
        return Sampling(self.waveform_temp, self.top_k, self.top_p)

    @property
    def fine_sampling(self) -> Sampling:
        """How the fine stage draws."""
        return Sampling(self.fine_temp)

    def check(self, layout: Layout) -> None:
        """Raise InputError or VoiceError unless a model of this layout can speak it."""
        if self.semantic is not None:
            check_tokens("semantic tokens", self.semantic, 1, layout.semantic.vocab_size)
        if self.voice is not None:
            check_voice(self.voice, layout)


def real_time_factor(work_s: float, audio_s: float) -> float:
    """Seconds of work per second of audio; of an empty clip infinity, or NaN where nothing is known of any work."""
    if audio_s:
        return work_s / audio_s
    return math.inf if work_s else math.nan


@dataclass(frozen=True)
class Generation:
    """One utterance, with all that led to it.

    Args:
        audio: (samples,) float32, about -1..1; single peaks may lie beyond.
        sample_rate: samples per second.
        semantic: (n,) int64 semantic tokens.
        coarse: (2, frames) int32 codes.
        fine: (8, frames) int32 codes.
        timings: seconds spent in each stage: semantic, coarse, fine, codec. In company these are the seconds from
            the beginning of each of its jobs to their end, in which others were served too.
        engines: the engine that ran each stage: torch, cpu or cuda.
        fallbacks: of the stages that the torch engine ran because the one chosen by "auto" could not: why.
    """

    audio: np.ndarray
    sample_rate: int
    semantic: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    timings: dict[str, float] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    fallbacks: dict[str, str] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Length of the audio in seconds."""
        return len(self.audio) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio; below 1 is faster than speech. See `real_time_factor`."""
        return real_time_factor(sum(self.timings.values()), self.duration)

    @property
    def prompt(self) -> dict[str, np.ndarray]:
        """The tokens under the keys of a history prompt, to be used as a voice."""
        return {"semantic_prompt": self.semantic, "coarse_prompt": self.coarse, "fine_prompt": self.fine}

    def save(self, path: str | os.PathLike[str], subtype: str | None = None) -> None:
        """Write the audio; the suffix names the format (wav, flac, ogg, mp3)."""
        write_audio(path, self.audio, self.sample_rate, subtype=subtype)


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """The next samples of a streamed utterance, (n,) float32, at least one."""

    utterance: Any
    audio: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """An utterance succeeded. All its AudioChunks came before.

    Args:
        result: a Generation, or the array of the last stage where only some stages were asked for.
    """

    utterance: Any
    result: Any


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """An utterance ended with an error; the others go on."""

    utterance: Any
    error: BarkfastError


Event = AudioChunk | Done | Failed
