"""The names of `bark.model`: Suno's GPT and its configuration, for programs that build and load networks themselves.

Such a network may be put into `barkfast.generation.models`; one of barkfast's engines then runs it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from barkfast import config as ours
from barkfast.models import gpt

__all__ = ["GPT", "GPTConfig"]

# Positions of the text, and of the history whose embeddings are added to them.
_MERGED = 256

LAYERS = "layers come with GPT and FineGPT; barkfast's own are in barkfast.models.gpt, with other arguments"

Past = tuple[tuple[Tensor, Tensor], ...]


def __getattr__(name: str) -> Any:
    """Raise ImportError, with the reason, for the layer classes of Suno's network, which barkfast does not have."""
    if name in ("Block", "CausalSelfAttention", "LayerNorm", "MLP"):
        raise ImportError(f"barkfast.model has no {name!r}, which bark.model has: {LAYERS}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class GPTConfig:
    """Sizes of a network, with Suno's names in Suno's order; `dropout` is stored but never applied."""

    block_size: int = 1024
    input_vocab_size: int = 10_048
    output_vocab_size: int = 10_048
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True


def forward(
    network: gpt.GPT,
    idx: Tensor,
    merge_context: bool = False,
    past_kv: Past | None = None,
    position_ids: Tensor | None = None,
    use_cache: bool = False,
) -> tuple[Tensor, Past | None]:
    """Logits of the last position, (batch, 1, output_vocab_size), and with `use_cache` all keys and values.

    Args:
        idx: (batch, time) ids: a prompt, or one token with `past_kv`.
        merge_context: sum the embeddings of the first 256 ids and of the next 256.
        past_kv: keys and values of earlier positions, (batch, n_head, time, head_dim) each, a pair per layer.
        position_ids: (1, time) positions; by default those that follow the past.
    """
    x = network.embed(idx, _MERGED if merge_context and past_kv is None else 0)
    start, time = past_kv[0][0].shape[-2] if past_kv else 0, x.shape[1]
    if start + time > network.config.block_size or (start and time > 1):
        raise ValueError(
            f"{time} positions after {start}; expected at most {network.config.block_size} in all, and one at a time "
            "after a past"
        )
    if position_ids is None:
        position_ids = torch.arange(start, start + time, device=idx.device)[None]
    x = x + network.transformer.wpe(position_ids)
    present = []
    for layer, block in enumerate(network.transformer.h):
        shape = (x.shape[0], network.config.n_head, start + time, network.config.n_embd // network.config.n_head)
        keys, values = x.new_empty(shape), x.new_empty(shape)
        if past_kv:
            keys[:, :, :start], values[:, :, :start] = past_kv[layer]
        x = block(x, keys, values, start)
        present.append((keys, values))
    return network.lm_head(network.transformer.ln_f(x)[:, [-1]]), tuple(present) if use_cache else None


def count_parameters(network: torch.nn.Module, without: list[Any]) -> int:
    """Number of a network's parameters, those of the tables in `without` excluded."""
    left_out = sum(table.weight.numel() for table in without)
    return sum(parameter.numel() for parameter in network.parameters()) - left_out


class GPT(gpt.GPT):
    """The semantic or coarse network, with the parameters, calls and results of Suno's class."""

    def __init__(self, config: GPTConfig) -> None:
        sizes = {name: value for name, value in vars(config).items() if name != "dropout"}
        super().__init__(ours.GPTConfig(**sizes))
        self.config: Any = config

    def get_num_params(self, non_embedding: bool = True) -> int:
        """Number of parameters; without the token and position tables if `non_embedding`."""
        return count_parameters(self, [self.transformer.wte, self.transformer.wpe] if non_embedding else [])

    forward = forward  # type: ignore[assignment]
