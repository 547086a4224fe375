"""The semantic and coarse network: a pre-norm GPT with a static key-value cache.

Parameter names are those of Suno's checkpoints. In float32 on the CPU the logits equal the reference's bit for bit,
because every matrix is multiplied in the same shape and order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barkfast.config import GPTConfig

# The rows of a matrix-vector product stay bitwise the same if others are dropped in whole blocks of this many.
HEAD_BLOCK = 64


class KVCache:
    """Keys and values of one sequence, allocated once.

    `keys`, `values`: (n_layer, 1, n_head, block_size, head_dim); the first `length` positions are filled.
    """

    def __init__(self, config: GPTConfig, *, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, 1, config.n_head, config.block_size, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0


class LayerNorm(nn.Module):
    """Layer norm with an optional bias."""

    def __init__(self, n_embd: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    """Multi-head self-attention: causal with a cache, over the whole window without one."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # q | k | v
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of `x` (batch, time, n_embd), each (batch, n_head, time, head_dim)."""
        batch, time, width = x.shape
        q, k, v = self.c_attn(x).split(width, dim=2)
        shape = (batch, time, self.n_head, width // self.n_head)
        return q.view(shape).transpose(1, 2), k.view(shape).transpose(1, 2), v.view(shape).transpose(1, 2)

    def merge(self, y: Tensor) -> Tensor:
        """Project the heads' outputs (batch, n_head, time, head_dim) back to (batch, time, n_embd)."""
        return self.c_proj(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, keys: Tensor | None = None, values: Tensor | None = None, start: int = 0) -> Tensor:
        """Attend from `x`, at positions `start`.. of the cache slices `keys` and `values`.

        With a cache, either `start` is 0 (a prompt) or `x` is one token: a single query sees everything before it.
        """
        q, k, v = self.heads(x)
        if keys is None or values is None:
            return self.merge(F.scaled_dot_product_attention(q, k, v))
        end = start + x.shape[1]
        keys[:, :, start:end] = k
        values[:, :, start:end] = v
        if start == 0:
            return self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self.merge(F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end]))


class MLP(nn.Module):
    """Two projections around an exact (erf) GELU."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """One transformer layer; the GPT and the fine network set `norm_bias` differently."""

    def __init__(self, config: GPTConfig, norm_bias: bool) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, norm_bias)
        self.attn = Attention(config)
        self.ln_2 = LayerNorm(config.n_embd, norm_bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, keys: Tensor | None = None, values: Tensor | None = None, start: int = 0) -> Tensor:
        x = x + self.attn(self.ln_1(x), keys, values, start)
        return x + self.mlp(self.ln_2(x))


class Trunk(nn.Module):
    """Embeddings, blocks and final norm, under the names of Suno's checkpoints."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.input_vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, config.bias) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, config.bias)


class GPT(nn.Module):
    """Token ids and a cache in, the last position's hidden state and any slice of its logits out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Trunk(config)
        self.lm_head = nn.Linear(config.n_embd, config.output_vocab_size, bias=False)

    def embed(self, tokens: Tensor, n_merged: int = 0) -> Tensor:
        """Embed `tokens` (batch, length); the first `n_merged` and the next `n_merged` are summed pairwise."""
        wte = self.transformer.wte
        if not n_merged:
            return wte(tokens)
        slots = wte(tokens[:, :n_merged]) + wte(tokens[:, n_merged : 2 * n_merged])
        return torch.cat([slots, wte(tokens[:, 2 * n_merged :])], dim=1)

    def forward(self, tokens: Tensor, cache: KVCache, n_merged: int = 0) -> Tensor:
        """Append `tokens` (batch, length) to `cache`: a prompt to an empty one, or one token to a filled one.

        Returns the last position's normalised hidden state, (batch, 1, n_embd).
        """
        x = self.embed(tokens, n_merged)
        start, time = cache.length, x.shape[1]
        if start + time > self.config.block_size:
            raise ValueError(f"position {start + time - 1} is beyond the network's {self.config.block_size} positions")
        if start and time > 1:
            raise ValueError(f"{time} tokens for a cache that holds {start}; a filled cache takes one at a time")
        x = x + self.transformer.wpe.weight[start : start + time]
        for layer, block in enumerate(self.transformer.h):
            x = block(x, cache.keys[layer], cache.values[layer], start)
        cache.length = start + time
        return self.transformer.ln_f(x)[:, -1:]

    def logits(self, hidden: Tensor, first: int, end: int) -> Tensor:
        """Logits of token ids [first, end) for `hidden` (batch, 1, n_embd) -> (batch, end - first)."""
        rounded = first + -(-(end - first) // HEAD_BLOCK) * HEAD_BLOCK
        return F.linear(hidden, self.lm_head.weight[first:rounded])[:, 0, : end - first]
