"""What decode_attention and combine_splits compute."""

import math

import torch
from torch import Tensor

from barkfast_kernels.references import running_rows
from barkfast_kernels.slots import POSITION


def decode_attention_reference(
    q: Tensor, keys: Tensor, values: Tensor, partial: Tensor, stats: Tensor, rows: Tensor, slots: Tensor
) -> None:
    """Attend to positions 0..POSITION of the row's slot, in as many even splits as `partial` has."""
    _, n_head, block_size, head_dim = keys.shape
    splits = partial.shape[2]
    for row, slot in running_rows(rows, slots):
        length = min(int(slots[slot, POSITION.value]) + 1, block_size)
        chunk = math.ceil(length / splits)
        for split in range(splits):
            part = slice(split * chunk, min((split + 1) * chunk, length))
            k, v = keys[slot, :, part].float(), values[slot, :, part].float()
            if k.shape[1] == 0:
                partial[row, :, split] = 0
                stats[row, :, split, 0] = -math.inf
                stats[row, :, split, 1] = 0
                continue
            scores = (k @ q[row].view(n_head, head_dim, 1)).squeeze(2) / math.sqrt(head_dim) * math.log2(math.e)
            top = scores.amax(1, keepdim=True)
            p = torch.exp2(scores - top)
            partial[row, :, split] = (p[:, None] @ v).squeeze(1)
            stats[row, :, split, 0] = top.squeeze(1)
            stats[row, :, split, 1] = p.sum(1)


def combined(partial: Tensor, stats: Tensor) -> Tensor:
    """(n_head, head_dim) from one row's (n_head, splits, head_dim) and (n_head, splits, 2)."""
    top, total = stats.unbind(2)
    share = torch.exp2(top - top.amax(1, keepdim=True))
    return (partial * share[..., None]).sum(1) / (total * share).sum(1, keepdim=True)


def combine_splits_reference(partial: Tensor, stats: Tensor, out: Tensor, rows: Tensor, slots: Tensor) -> None:
    """out[row] = attention output of the row, combined from the splits of `decode_attention`."""
    for row, _ in running_rows(rows, slots):
        out[row] = combined(partial[row], stats[row]).flatten().to(out.dtype)
