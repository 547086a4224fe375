"""Memory for keys and values; csrc's kv.h describes the layout."""

import math

import torch
from torch import Tensor

from barkfast.config import GPTConfig
from barkfast.errors import EngineError
from barkfast.runtime.cpu.packing import Format, require_native

# Format of a cache -> the dtype of its memory.
DTYPES = {Format.F32: torch.float32, Format.BF16: torch.bfloat16, Format.INT8: torch.uint8}
SCALE_BYTES = 4


def allocate_cache(config: GPTConfig, n_slots: int, format: Format) -> tuple[Tensor, Tensor]:
    """Allocate keys and values, (n_layer, n_slots, n_head, capacity * head_dim) each; int8 adds 4 bytes per position.

    Raises: EngineError naming the size.
    """
    capacity = require_native().cache_capacity(config.block_size)
    dtype = DTYPES[format]
    per_position = config.head_dim + (SCALE_BYTES if dtype == torch.uint8 else 0)
    shape = (config.n_layer, n_slots, config.n_head, capacity * per_position)
    try:
        return torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    except RuntimeError as error:
        size = 2 * math.prod(shape) * dtype.itemsize
        raise EngineError(f"no {size / 2**20:.0f} MiB of memory for the cache of {n_slots} slots: {error}") from error


def unpack_cache(keys: Tensor, values: Tensor, slot: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Copies of a slot's keys and values, each (n_layer, n_head, capacity, head_dim)."""
    if keys.dtype == torch.uint8:
        return _unpack_int8(keys[:, slot], values[:, slot], head_dim)
    layers, _, heads, size = keys.shape
    capacity, pair = size // head_dim, 1 if keys.dtype == torch.float32 else 2
    shape = (layers, heads, capacity, head_dim)
    keys = keys[:, slot].view(layers, heads, capacity // 16, head_dim // pair, 16, pair)
    values = values[:, slot].view(layers, heads, head_dim // 16, capacity // pair, 16, pair)
    return keys.permute(0, 1, 2, 4, 3, 5).reshape(shape), values.permute(0, 1, 3, 5, 2, 4).reshape(shape)


def _unpack_int8(keys: Tensor, values: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """A slot's keys and values, dequantized to float32."""
    layers, heads, size = keys.shape
    capacity = size // (head_dim + SCALE_BYTES)
    found = []
    for block, split, order in (
        (keys, (capacity // 16, head_dim, 16), (0, 1, 2, 4, 3)),
        (values, (head_dim // 16, capacity, 16), (0, 1, 3, 2, 4)),
    ):
        numbers, scales = block.split([capacity * head_dim, capacity * SCALE_BYTES], dim=-1)
        whole = numbers.view(torch.int8).view(layers, heads, *split).permute(order)
        units = scales.contiguous().view(torch.float32)
        found.append(whole.reshape(layers, heads, capacity, head_dim) * units[..., None])
    return found[0], found[1]
