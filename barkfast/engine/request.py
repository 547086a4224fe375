"""What is asked of the engine: one utterance, and how to go about it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.stages.check import check_tokens
from barkfast.text import Overflow, check_overflow, check_text
from barkfast.voices import check_voice

# How sound is handed out: all at the end; as it comes, the same samples as offline; as soon as it can be had, with fine
# codes that differ from the offline ones (see barkfast.stages.fine.LiveFineWindows).
Streaming = Literal["off", "exact", "low_latency"]


@dataclass(frozen=True, eq=False)
class Request:
    """One utterance to be spoken. It can be used any number of times, except with a `Randomness` for its seed.

    Args:
        text: what to say, up to 256 tokens, about 13 seconds of speech; None where `semantic` is given.
        voice: the three arrays of a voice, as `Bark.load_voice` returns them.
        text_sampling, waveform_sampling, fine_sampling: how each stage draws.
        min_eos_p: end when the end token is this likely; "auto" for the model's value, None for only when drawn.
        max_duration_s: end after this many seconds.
        overflow: "cut" a text that is too long, with a warning, or raise an "error".
        seed: the same seed gives the same tokens, alone and in company; None draws from torch's global generator.
        stream: "off", "exact" or "low_latency", see `Streaming`.
        priority: of two requests that are equally due, the one of higher priority goes first.
        deadline: in seconds of time.monotonic(): the earlier, the sooner its turn. Nothing ends when it passes.
        semantic: (n,) semantic tokens to be voiced, instead of a text.
    Errors: InputError.
    """

    text: str | None
    voice: Mapping[str, np.ndarray] | None = None
    text_sampling: Sampling = Sampling(0.7)
    waveform_sampling: Sampling = Sampling(0.7)
    fine_sampling: Sampling = Sampling(0.5)
    min_eos_p: float | None | Literal["auto"] = "auto"
    max_duration_s: float | None = None
    overflow: Overflow = "cut"
    seed: Seed = None
    stream: Streaming = "off"
    priority: int = 0
    deadline: float | None = None
    semantic: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.semantic is None:
            # The dataclass is frozen for everyone else.
            object.__setattr__(self, "text", check_text(self.text))
        elif self.text is not None:
            raise InputError("a request has a text and semantic tokens; expected one of them")
        check_overflow(self.overflow)
        if self.stream not in get_args(Streaming):
            raise InputError(f"stream is {self.stream!r}; expected {', '.join(map(repr, get_args(Streaming)))}")
        if not isinstance(self.priority, int | np.integer):
            raise InputError(f"priority is {self.priority!r}; expected a whole number, more of it for sooner")
        if self.deadline is not None and not (
            isinstance(self.deadline, int | float | np.number) and math.isfinite(self.deadline)
        ):
            raise InputError(f"deadline is {self.deadline!r}; expected seconds of time.monotonic(), or None")
        # Raises for what is no seed.
        Randomness.of(self.seed)

    def check(self, layout: Layout) -> None:
        """Raise InputError or VoiceError unless a model of this layout can speak it."""
        if self.semantic is not None:
            check_tokens("semantic tokens", self.semantic, 1, layout.semantic.vocab_size)
        if self.voice is not None:
            check_voice(self.voice, layout)
