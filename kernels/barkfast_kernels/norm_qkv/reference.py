"""What norm_qkv computes."""

from torch import Tensor

from barkfast_kernels.references import layer_norm, linear, running_rows
from barkfast_kernels.slots import POSITION


def norm_qkv_reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: Tensor,
    slots: Tensor,
) -> None:
    """q[row] = query of LN(x[slot]); key and value are stored at the slot's POSITION, unless it is beyond the cache."""
    _, n_head, block_size, head_dim = keys.shape
    for row, slot in running_rows(rows, slots):
        h = layer_norm(x[slot], norm_weight, norm_bias)
        query, key, value = linear(h, weight, scale, bias).view(3, n_head, head_dim)
        q[row] = query.flatten()
        position = int(slots[slot, POSITION.value])
        if position < block_size:
            keys[slot, :, position] = key.to(keys.dtype)
            values[slot, :, position] = value.to(values.dtype)
