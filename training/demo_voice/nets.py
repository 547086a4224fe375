"""The engine's own network modules in training: every position at once, without a cache."""

import torch
import torch.nn.functional as F
from torch import Tensor

from barkfast.models.gpt import GPT


def autocast(device: str) -> torch.autocast:
    """bfloat16 products in training, where the device has instructions for them; float32 is faster elsewhere."""
    enabled = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)


def to_device(batch: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    """Move a batch's tensors to the network's device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def embed_positions(model: GPT, x: Tensor, positions: Tensor) -> Tensor:
    """Add the learned embedding of `positions` (time,) or (batch, time) to `x` (batch, time, n_embd)."""
    return x + model.transformer.wpe(positions)


def causal_trunk(model: GPT, x: Tensor, guided_layer: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Run the blocks with a causal mask.

    Returns the normalized hidden states and, for `guided_layer`, queries and keys of its first head, each
    (batch, time, head_dim).
    """
    watched = None
    for number, block in enumerate(model.transformer.h):
        q, k, v = block.attn.heads(block.ln_1(x))
        if number == guided_layer:
            watched = (q[:, 0], k[:, 0])
        x = x + block.attn.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        x = x + block.mlp(block.ln_2(x))
    return model.transformer.ln_f(x), watched


def guide_loss(queries: Tensor, keys: Tensor, guide: Tensor, first: int, reach: float = 1.6) -> Tensor:
    """Mean of -log of the share of a head's attention on the text tokens near the one being spoken.

    Args:
        queries, keys: (batch, time, head_dim); the text is at positions 0 .. `first` - 1.
        guide: (batch, time - first) token position of each unit, negative where unknown.
        reach: largest distance that counts as near.
    """
    time = queries.shape[1]
    scores = queries[:, first:].float() @ keys.float().transpose(1, 2) / queries.shape[-1] ** 0.5
    steps = torch.arange(time, device=scores.device)
    scores = scores.masked_fill(steps[None, :] > steps[first:, None], -1e9)
    shares = F.log_softmax(scores, -1)[:, :, :first]
    near = (steps[:first] - guide[:, :, None]).abs() <= reach
    known = (guide >= 0) & near.any(-1)
    mass = torch.logsumexp(shares.masked_fill(~near, -1e4), -1)
    return -mass[known].clamp(min=-20).mean() if known.any() else scores.new_zeros(())
