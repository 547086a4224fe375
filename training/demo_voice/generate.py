"""Batched sampling from networks in training, with few text slots or all; the engine itself uses the full layout."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barkfast.models.gpt import GPT

from .units import edit_distance, read_phones

Cache = list[tuple[Tensor, Tensor]]


def _append(model: GPT, x: Tensor, cache: Cache, is_causal: bool) -> Tensor:
    """Run `x` (batch, time, n_embd) after the cached positions; return the last position's hidden state."""
    for number, block in enumerate(model.transformer.h):
        q, k, v = block.attn.heads(block.ln_1(x))
        if number < len(cache):
            k, v = (torch.cat(pair, 2) for pair in zip(cache[number], (k, v), strict=True))
            cache[number] = (k, v)
        else:
            cache.append((k, v))
        x = x + block.attn.merge(F.scaled_dot_product_attention(q, k, v, is_causal=is_causal))
        x = x + block.mlp(block.ln_2(x))
    return model.transformer.ln_f(x[:, -1])


@torch.no_grad()
def sample_units(
    model: GPT,
    prompt: dict[str, Tensor],
    end: int,
    steps: int,
    temperature: float,
    generator: torch.Generator,
) -> list[tuple[np.ndarray, bool]]:
    """Units for each row of a batch from t2s.lay_out (its own units are not read), and whether each has ended."""
    wte, wpe = model.transformer.wte, model.transformer.wpe
    n_slots = prompt["text"].shape[1]
    x = torch.cat([wte(prompt["text"]) + wte(prompt["history"]), wte(prompt["units"][:, :1])], 1)
    position = int(prompt["positions"][n_slots])
    cache: Cache = []
    hidden = _append(model, x + wpe(prompt["positions"][: n_slots + 1]), cache, True)
    found, ended = [], torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(steps):
        logits = model.lm_head(hidden).float()[:, : end + 1]
        if temperature:
            token = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)[:, 0]
        else:
            token = logits.argmax(-1)
        token[ended] = end
        ended |= token == end
        found.append(token)
        if ended.all():
            break
        position += 1
        hidden = _append(model, (wte(token) + wpe.weight[position])[:, None], cache, False)
    rows = torch.stack(found, 1).cpu().numpy()
    return [(row[row != end], bool((row == end).any())) for row in rows]


def phone_errors(said: list[np.ndarray], phones: list[list[str]]) -> float:
    """Phone error rate of units against the phones that should have been said."""
    errors = sum(edit_distance(read_phones(units), right) for units, right in zip(said, phones, strict=True))
    return errors / sum(map(len, phones))
