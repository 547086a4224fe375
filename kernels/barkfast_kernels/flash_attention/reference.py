"""What flash_attention computes."""

import torch
from torch import Tensor


def _heads(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, (n_head, T, head_dim) each, from (T, 3 * n_embd)."""
    query, key, value = qkv.view(len(qkv), 3, n_head, -1).permute(1, 2, 0, 3)
    return query, key, value


def flash_attention_reference(qkv: Tensor, out: Tensor, *, n_head: int, causal: bool) -> None:
    """`out` (T, n_embd) = softmax(Q K^T / sqrt(head_dim)) V, head by head, of `qkv` (T, 3 * n_embd)."""
    query, key, value = (part.float() for part in _heads(qkv, n_head))
    scores = query @ key.mT * query.shape[-1] ** -0.5
    if causal:
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    out.copy_((scores.softmax(-1) @ value).transpose(0, 1).reshape(out.shape))


def prefill_attention_reference(
    qkv: Tensor, out: Tensor, keys: Tensor, values: Tensor, prompt: Tensor, *, n_head: int
) -> None:
    """Causal `flash_attention`; also stores K and V of positions below the prompt's length in its slot of the cache."""
    flash_attention_reference(qkv, out, n_head=n_head, causal=True)
    slot, length = prompt[:2].tolist()
    if slot >= 0:
        length = min(length, len(qkv), keys.shape[2])
        _, key, value = _heads(qkv, n_head)
        keys[slot, :, :length] = key[:, :length]
        values[slot, :, :length] = value[:, :length]
