"""Memory for keys and values; csrc's kv.h says what is where."""

import math

import torch
from torch import Tensor

from barkfast.config import GPTConfig
from barkfast.errors import EngineError
from barkfast.runtime.cpu.packing import Format, require_native


def allocate_cache(config: GPTConfig, n_slots: int, format: Format) -> tuple[Tensor, Tensor]:
    """Memory for keys and values, (n_layer, n_slots, n_head, capacity * head_dim) each.

    Errors: EngineError naming the size.
    """
    capacity = require_native().cache_capacity(config.block_size)
    shape = (config.n_layer, n_slots, config.n_head, capacity * config.head_dim)
    dtype = torch.float32 if format == Format.F32 else torch.bfloat16
    try:
        return torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    except RuntimeError as error:
        size = 2 * math.prod(shape) * dtype.itemsize
        raise EngineError(f"no {size / 2**20:.0f} MiB of memory for the cache of {n_slots} slots: {error}") from error


def unpack_cache(keys: Tensor, values: Tensor, slot: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Copies of a slot's keys and values, each (n_layer, n_head, capacity, head_dim)."""
    layers, _, heads, size = keys.shape
    capacity, pair = size // head_dim, 1 if keys.dtype == torch.float32 else 2
    shape = (layers, heads, capacity, head_dim)
    keys = keys[:, slot].view(layers, heads, capacity // 16, head_dim // pair, 16, pair)
    values = values[:, slot].view(layers, heads, head_dim // 16, capacity // pair, 16, pair)
    return keys.permute(0, 1, 2, 4, 3, 5).reshape(shape), values.permute(0, 1, 3, 5, 2, 4).reshape(shape)
