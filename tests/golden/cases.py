"""The calls whose results are kept as golden tokens: numbers only, so that anyone can repeat them."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

TEXT = "Hello world [laughs] the speech is MAN: é — ♪ la la ♪ 42!"
SAMPLING: dict[str, dict[str, Any]] = {
    "default": {},
    "top_k": {"top_k": 50},
    "top_p": {"top_p": 0.9},
    "both": {"top_k": 20, "top_p": 0.8, "temp": 1.0},
    # the reference's way to be greedy, whatever the random numbers
    "likeliest": {"top_k": 1},
}
# tokens per window, tokens of history: Suno's, the longest window beside a full history, the shortest history, odd ones
WINDOWS = [(60, 630), (138, 630), (60, 60), (47, 333)]
# semantic tokens, frames, dtypes: shaped as Suno's voices are, announcer (uint16) and an odd history among them
VOICES = {
    "none": None,
    "uint16": (499, 750, np.uint16, np.uint16),
    "long": (731, 1098, np.int64, np.int32),
    "odd": (191, 287, np.int64, np.int32),
    "short": (158, 237, np.int64, np.int32),
}


@dataclass(frozen=True)
class Case:
    """One call of a function of `bark.generation`: on the text above, or on random tokens of a shape."""

    name: str
    function: str
    shape: tuple[int, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_drawn(self) -> bool:
        """Whether the result depends on random numbers."""
        certain = self.options.get("top_k") == 1 or ("temp" in self.options and self.options["temp"] is None)
        return self.function != "codec_decode" and not certain

    def make_input(self, seed: int) -> str | np.ndarray:
        """The first argument; tokens differ from seed to seed."""
        if self.shape is None:
            return TEXT
        end = 10_000 if self.function == "generate_coarse" else 1024
        return numbers(f"{self.name}/{seed}", self.shape, end)


def numbers(key: str, shape: tuple[int, ...], end: int) -> np.ndarray:
    """Whole numbers below `end`, drawn for `key` alone."""
    bits = np.random.PCG64(zlib.crc32(key.encode())).random_raw(int(np.prod(shape)))
    return (bits % np.uint64(end)).astype(np.int64).reshape(shape)


def make_voice(name: str) -> dict[str, np.ndarray] | None:
    """A voice of random tokens with the lengths and dtypes of a real one."""
    shape = VOICES[name]
    if shape is None:
        return None
    n_semantic, n_frames, dtype, fine_dtype = shape
    fine = numbers(f"{name}/fine", (8, n_frames), 1024)
    return {
        "semantic_prompt": numbers(f"{name}/semantic", (n_semantic,), 10_000).astype(dtype),
        "coarse_prompt": fine[:2].astype(dtype),
        "fine_prompt": fine.astype(fine_dtype),
    }


def semantic_cases() -> Iterator[Case]:
    cached = {"silent": True, "use_kv_caching": True}
    for voice in VOICES:
        for sampling, options in SAMPLING.items():
            given = {"history_prompt": make_voice(voice), "max_gen_duration_s": 3.0, **cached, **options}
            yield Case(f"semantic/{voice}/{sampling}", "generate_text_semantic", None, given)
    yield Case("semantic/full", "generate_text_semantic", None, {"allow_early_stop": False, **cached})
    yield Case("semantic/drawn", "generate_text_semantic", None, {"min_eos_p": None, **cached})


def coarse_cases() -> Iterator[Case]:
    cached = {"silent": True, "use_kv_caching": True}
    samplings = list(SAMPLING.items())
    for i, voice in enumerate(VOICES):
        for j, (window, history) in enumerate(WINDOWS):
            # every voice with every window, every window with every sampling
            sampling, options = samplings[(i + j) % len(samplings)]
            given = {"history_prompt": make_voice(voice), "sliding_window_len": window, "max_coarse_history": history}
            name = f"coarse/{voice}/{window}-{history}/{sampling}"
            yield Case(name, "generate_coarse", (50,), {**given, **cached, **options})
    yield Case("coarse/full", "generate_coarse", (768,), cached)


def fine_cases() -> Iterator[Case]:
    for voice in VOICES:
        for temp in (0.5, None):
            given = {"history_prompt": make_voice(voice), "temp": temp}
            yield Case(f"fine/{voice}/{temp}", "generate_fine", (2, 120), given)
    for voice in ("none", "long"):
        yield Case(f"fine/beyond/{voice}", "generate_fine", (2, 1154), {"history_prompt": make_voice(voice)})


def codec_cases() -> Iterator[Case]:
    for n_frames in (1, 2, 12):
        yield Case(f"codec/{n_frames}", "codec_decode", (8, n_frames))


def all_cases() -> list[Case]:
    """Every golden call; each is made with the tiny model without bias and with the one with."""
    return [*semantic_cases(), *coarse_cases(), *fine_cases(), *codec_cases()]


def digest_stream() -> str:
    """A digest of what torch draws after a seed: torch changes it now and then, and between builds."""
    generator = torch.Generator().manual_seed(0)
    draws = [int(torch.multinomial(torch.ones(n) / n, 1, generator=generator)) for n in range(500, 12_500, 500)]
    return hashlib.sha256(str(draws).encode()).hexdigest()[:16]


def digest_generator() -> str:
    """A digest of the state of torch's generator: equal where the same random numbers were consumed."""
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()[:16]
