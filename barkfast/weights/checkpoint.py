"""The types of a model that was found: a checkpoint, and the weights it opens."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from barkfast.config import CodecConfig, FineConfig, GPTConfig, Layout
from barkfast.errors import CheckpointError, InputError
from barkfast.weights.shapes import Shapes, check_tensors, codec_shapes, encoder_shapes, gpt_shapes

STAGES = ("text", "coarse", "fine")


class MadeTensors(Mapping[str, torch.Tensor]):
    """Tensors of known shapes, all created when the first one is read."""

    def __init__(self, shapes: Shapes, make: Callable[[], dict[str, torch.Tensor]]) -> None:
        self._shapes, self._make = shapes, make
        self._made: dict[str, torch.Tensor] | None = None

    def __getitem__(self, key: str) -> torch.Tensor:
        if self._made is None:
            self._made = self._make()
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@dataclass(frozen=True)
class StageWeights:
    """One GPT's size and tensors.

    `tensors` has Suno's nanoGPT keys without `_orig_mod.`, on the CPU, memory-mapped where the file allows, in the
    dtype they are stored in. Do not write to them: they may be the mapped file itself. The fine network's
    `lm_heads.{i}.weight` and `transformer.wtes.{i+1}.weight` are both present and are one tensor.
    `content` returns a text that identifies the numbers in the tensors. It may read whole files.
    """

    config: GPTConfig | FineConfig
    tensors: Mapping[str, torch.Tensor]
    content: Callable[[], str] = field(repr=False)


@dataclass(frozen=True)
class CodecWeights:
    """EnCodec's decoder and the codebooks that the model uses, fp32, weight norm folded.

    Keys: `decoder.layers.N.conv.{weight,bias}` (transposed convolutions too),
    `decoder.layers.1.lstm.{weight,bias}_{ih,hh}_l{0,1}`, `decoder.layers.N.block.{1,3}.conv.{weight,bias}`,
    `decoder.layers.N.shortcut.conv.{weight,bias}`, `quantizer.layers.N.codebook.embed`.
    `read_encoder` reads the encoder, `encoder.layers.N...`, and the codebooks again: synthesis needs no encoder. It
    raises CheckpointError if there is none.
    """

    config: CodecConfig
    tensors: dict[str, torch.Tensor]
    read_encoder: Callable[[], dict[str, torch.Tensor]] = field(repr=False)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was found; each stage is read on demand.

    Args:
        name: as requested, e.g. "suno/bark", "random:nano:0" or a path.
        origin: where it was found, one line for messages.
        layout: its token ids, rates and lengths.
        folder: the local folder that may hold its tokenizer files and voices.
        repo: the hub repository that holds its tokenizer files and voices.
        read_stage: stage name -> weights.
        read_codec: -> codec weights.
    """

    name: str
    origin: str
    layout: Layout
    folder: Path | None
    repo: str | None
    read_stage: Callable[[str], StageWeights] = field(repr=False)
    read_codec: Callable[[], CodecWeights] = field(repr=False)

    def stage(self, name: str) -> StageWeights:
        """Open "text", "coarse" or "fine".

        Raises: CheckpointError if the file is damaged, or its keys, shapes or vocabulary do not fit its
        configuration; MissingFileError if it cannot be found.
        """
        if name not in STAGES:
            raise InputError(f"unknown stage {name!r}; expected one of {', '.join(STAGES)}")
        weights = self.read_stage(name)
        where = f"{name} network of {self.name} ({self.origin})"
        # MadeTensors have these shapes by construction, and checking would create them now.
        if not isinstance(weights.tensors, MadeTensors):
            check_tensors(weights.tensors, gpt_shapes(weights.config), where)
        _check_layout(name, weights.config, self.layout, where)
        return weights

    def codec(self) -> CodecWeights:
        """Open the codec. Raises: as `stage`."""
        weights = self.read_codec()
        check_tensors(weights.tensors, codec_shapes(weights.config), f"codec for {self.name}")
        if weights.config.codebook_size != self.layout.codebook_size:
            raise CheckpointError(
                f"the codec has codebooks of {weights.config.codebook_size} entries, but {self.name} speaks codes of "
                f"{self.layout.codebook_size}; give the codec that belongs to the model (BARKFAST_CODEC or codec=)"
            )
        # Hold no reference to `weights`, or a codec that can encode would keep its decoder's tensors twice.
        return replace(weights, read_encoder=partial(_checked_encoder, weights.read_encoder, weights.config, self.name))


def _checked_encoder(
    read: Callable[[], dict[str, torch.Tensor]], config: CodecConfig, name: str
) -> dict[str, torch.Tensor]:
    tensors = read()
    check_tensors(tensors, encoder_shapes(config), f"encoder of the codec for {name}")
    return tensors


def _check_layout(name: str, config: GPTConfig | FineConfig, layout: Layout, where: str) -> None:
    """Raise CheckpointError unless every id and position of the layout exists in the network's tables."""
    semantic, coarse = layout.semantic, layout.coarse
    if name == "text":
        largest_in = max(semantic.text_pad_token, semantic.infer_token, semantic.pad_token)
        largest_out = semantic.pad_token
    elif name == "coarse":
        largest_in = max(coarse.semantic_pad_token, coarse.infer_token)
        largest_out = semantic.vocab_size + coarse.n_codebooks * layout.codebook_size - 1
    else:
        largest_in, largest_out = layout.codebook_size, layout.codebook_size - 1
        if isinstance(config, FineConfig) and config.n_codes_total != layout.fine.n_codebooks:
            raise CheckpointError(
                f"{where}: it has {config.n_codes_total} codebooks, but its generation_config.json says "
                f"{layout.fine.n_codebooks}"
            )
    positions = {
        "text": ("max_input_semantic_length and max_new_tokens are together", semantic.n_slots + semantic.max_steps),
        "coarse": ("max_coarse_input_length is", coarse.n_slots),
        "fine": ("max_fine_input_length is", layout.fine.window),
    }
    what, needed = positions[name]
    if needed > config.block_size:
        raise CheckpointError(
            f"{where}: {what} {needed} in its generation_config.json; expected at most {config.block_size}, the "
            f"block_size of its config.json"
        )
    limits: Mapping[str, tuple[int, int]] = {
        "input_vocab_size": (largest_in, config.input_vocab_size),
        "output_vocab_size": (largest_out, config.output_vocab_size),
    }
    for key, (largest, size) in limits.items():
        if largest >= size:
            raise CheckpointError(
                f"{where}: token id {largest} is needed but {key} is {size}; the generation_config.json beside the "
                f"weights is missing or belongs to another model"
            )
