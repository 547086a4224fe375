"""Frozen descriptions of a Bark model: network sizes, token layout, sampling.

All token ids, rates and window lengths in the package are read from here, and come from the model's own
configuration. The defaults are those of Suno's released checkpoints.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from barkfast.checks import check_number, check_whole
from barkfast.errors import CheckpointError, InputError
from barkfast.fields import Count, Rate, Share, Size, TokenId, read_fields, read_section


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """Size of one GPT (the semantic or the coarse network)."""

    n_layer: Count = 12
    n_head: Count = 12
    n_embd: Size = 768
    input_vocab_size: Size = 10_048
    output_vocab_size: Size = 10_048
    block_size: Size = 1024
    bias: bool = True

    def __post_init__(self) -> None:
        if min(self.n_layer, self.n_head, self.n_embd, self.block_size) < 1 or self.n_embd % self.n_head:
            raise InputError(
                f"impossible network: n_layer={self.n_layer}, n_head={self.n_head}, n_embd={self.n_embd}, "
                f"block_size={self.block_size}; n_embd must be a multiple of n_head and all must be positive"
            )

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def dropout(self) -> float:
        """Always 0: inference only. Suno's configurations have this field."""
        return 0.0


@dataclass(frozen=True, slots=True)
class FineConfig(GPTConfig):
    """Size of the fine network; it reads `n_codes_total` codebooks and predicts all but the first `n_codes_given`."""

    input_vocab_size: Size = 1056
    output_vocab_size: Size = 1056
    n_codes_total: Count = 8
    n_codes_given: Count = 1

    def __post_init__(self) -> None:
        GPTConfig.__post_init__(self)
        if not 1 <= self.n_codes_given < self.n_codes_total:
            raise InputError(
                f"impossible network: n_codes_given={self.n_codes_given} of n_codes_total={self.n_codes_total}; "
                "at least one codebook must be given, and one be left to predict"
            )


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """EnCodec's decoder and residual quantizer (defaults: the 24 kHz model at 6 kbit/s)."""

    sample_rate: Size = 24_000
    n_codebooks: Count = 8
    codebook_size: Size = 1024
    dimension: Size = 128
    n_filters: Size = 32
    ratios: tuple[Count, ...] = (8, 5, 4, 2)
    kernel_size: Size = 7
    last_kernel_size: Size = 7
    residual_kernel_size: Size = 3
    n_residual_layers: Count = 1
    dilation_base: Size = 2
    compress: Size = 2
    n_lstm_layers: Count = 2
    conv_shortcut: bool = True
    trim_right_ratio: Share = 1.0

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)


@dataclass(frozen=True, slots=True)
class SemanticLayout:
    """Token ids and lengths of the semantic stage (BERT ids + history -> semantic tokens)."""

    vocab_size: Size = 10_000
    pad_token: TokenId = 10_000  # also the end-of-speech token
    text_offset: TokenId = 10_048
    text_pad_token: TokenId = 129_595
    infer_token: TokenId = 129_599
    n_slots: Size = 256  # text slots; the same number of history slots is summed onto them
    max_steps: Size = 768
    rate_hz: Rate = 49.9
    min_eos_p: Share = 0.2


@dataclass(frozen=True, slots=True)
class CoarseLayout:
    """Token ids and lengths of the coarse stage (semantic tokens -> interleaved codebooks 0 and 1)."""

    semantic_pad_token: TokenId = 12_048
    infer_token: TokenId = 12_050
    n_codebooks: Count = 2
    rate_hz: Rate = 75
    n_slots: Size = 256  # semantic slots in front of the infer token
    max_history: Size = 630  # coarse tokens of context; users may choose 60 (fast) to 630 (faithful)
    sliding_window: Size = 60  # tokens generated before the context slides
    n_positions: Size = 1024  # slots, context and new tokens must fit in these


@dataclass(frozen=True, slots=True)
class FineLayout:
    """Lengths of the fine stage (codebooks 0..n -> all codebooks)."""

    n_codebooks: Count = 8
    window: Size = 1024  # frames per forward pass
    max_history: Size = 512  # most frames of a voice in front; also the frames by which windows advance


# generation_config.json: section -> field -> key.
_GENERATION_NAMES = {
    "semantic_config": {
        "vocab_size": "semantic_vocab_size",
        "pad_token": "eos_token_id",
        "text_offset": "text_encoding_offset",
        "text_pad_token": "text_pad_token",
        "infer_token": "semantic_infer_token",
        "n_slots": "max_input_semantic_length",
        "max_steps": "max_new_tokens",
        "rate_hz": "semantic_rate_hz",
        "min_eos_p": "min_eos_p",
    },
    "coarse_acoustics_config": {
        "semantic_pad_token": "coarse_semantic_pad_token",
        "infer_token": "coarse_infer_token",
        "n_codebooks": "n_coarse_codebooks",
        "rate_hz": "coarse_rate_hz",
        "n_slots": "max_coarse_input_length",
        "max_history": "max_coarse_history",
        "sliding_window": "sliding_window_len",
    },
    "fine_acoustics_config": {
        "n_codebooks": "n_fine_codebooks",
        "window": "max_fine_input_length",
        "max_history": "max_fine_history_length",
    },
}
_LAYOUTS = (
    ("semantic", SemanticLayout, "semantic_config"),
    ("coarse", CoarseLayout, "coarse_acoustics_config"),
    ("fine", FineLayout, "fine_acoustics_config"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that the stages need to know about a model's tokens."""

    semantic: SemanticLayout = field(default_factory=SemanticLayout)
    coarse: CoarseLayout = field(default_factory=CoarseLayout)
    fine: FineLayout = field(default_factory=FineLayout)
    codebook_size: Size = 1024
    sample_rate: Size = 24_000

    @property
    def coarse_per_semantic(self) -> float:
        """Flat coarse tokens per semantic token (3.006... for Suno's), in the reference's order of operations."""
        return self.coarse.rate_hz / self.semantic.rate_hz * self.coarse.n_codebooks

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any], where: str = "generation_config.json") -> "Layout":
        """Read a Hugging Face `generation_config.json` of a Bark model; missing fields get Suno's values.

        Sampling options in it (do_sample, temperature, top_k) are not part of the layout and are ignored:
        barkfast samples as `bark` does unless the call says otherwise.

        Raises:
            CheckpointError: a value does not fit its field; the message has `where`, key and value.
        """

        def read(kind: Any, section: str, names: dict[str, str]) -> Any:
            return kind(**read_fields(kind, read_section(config, section, where), names, f"{where}: {section}"))

        layout = cls(
            **{field: read(kind, section, _GENERATION_NAMES[section]) for field, kind, section in _LAYOUTS},
            **read_fields(cls, config, {"codebook_size": "codebook_size", "sample_rate": "sample_rate"}, where),
        )
        layout.check(where)
        return layout

    def check(self, where: str) -> None:
        """Raise CheckpointError for lengths that do not fit together."""
        coarse, fine = self.coarse, self.fine
        if not coarse.n_codebooks < fine.n_codebooks:
            raise CheckpointError(
                f"{where}: n_coarse_codebooks is {coarse.n_codebooks}; expected fewer than n_fine_codebooks, "
                f"which is {fine.n_codebooks}"
            )
        if 2 * fine.max_history > fine.window:
            raise CheckpointError(
                f"{where}: max_fine_history_length is {fine.max_history}; expected at most half of "
                f"max_fine_input_length, which is {fine.window}"
            )
        if coarse.n_slots + coarse.max_history + coarse.sliding_window > coarse.n_positions:
            raise CheckpointError(
                f"{where}: max_coarse_input_length, max_coarse_history and sliding_window_len are {coarse.n_slots}, "
                f"{coarse.max_history} and {coarse.sliding_window}; expected at most {coarse.n_positions} together"
            )

    def to_generation_config(self) -> dict[str, Any]:
        """The same layout as a `generation_config.json` that transformers reads."""
        config: dict[str, Any] = {
            "model_type": "bark",
            "codebook_size": self.codebook_size,
            "sample_rate": self.sample_rate,
        }
        for field_name, _, section in _LAYOUTS:
            layout = getattr(self, field_name)
            config[section] = {key: getattr(layout, ours) for ours, key in _GENERATION_NAMES[section].items()}
        config["semantic_config"] |= {"do_sample": True, "temperature": 0.7}
        config["coarse_acoustics_config"] |= {"do_sample": True, "temperature": 0.7}
        config["fine_acoustics_config"] |= {"temperature": 0.5}
        return config


# Storage dtypes of weights. int8 and int4 are integers with scales, for matrices only.
DTYPES = ("float32", "bfloat16", "float16", "int8", "int4")
DTYPE_ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}


def truthy(value: str | None) -> bool:
    """Whether the value of an environment variable means on, by Suno's rule."""
    return (value or "").lower() in ("true", "1", "t")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn: top-p, then top-k, then temperature, then softmax, then the draw.

    Args:
        temperature: 1.0 is more diverse; 0 or None is greedy.
        top_k: draw from this many of the likeliest tokens, at least 1; None is off.
        top_p: draw from the likeliest tokens that together have this probability, 0 to 1; None is off.

    Raises:
        InputError: a value is none of these.
    """

    temperature: float | None = 0.7
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        # object.__setattr__, because the dataclass is frozen.
        if self.temperature is not None:
            expected = "0 (greedy) or a positive number, e.g. 0.7"
            object.__setattr__(self, "temperature", check_number("temperature", self.temperature, expected, least=0))
        if self.top_k is not None:
            expected = "a whole number of at least 1, or None"
            object.__setattr__(self, "top_k", check_whole("top_k", self.top_k, expected, least=1))
        if self.top_p is not None:
            expected = "a number from 0 to 1, or None"
            object.__setattr__(self, "top_p", check_number("top_p", self.top_p, expected, least=0, most=1))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return not self.temperature
