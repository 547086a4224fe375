"""The slots' state on the device between steps, and how the host reads it without stalling the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from barkfast.config import GPTConfig
from barkfast_kernels.slots import DRAWN, STATUS, WORDS


@dataclass(frozen=True)
class State:
    """One sequence per slot.

    Args:
        x: (n_slots, n_embd) float32, the embedding of the token to be processed next.
        keys, values: (n_layer, n_slots, n_head, block_size, head_dim) in the storage dtype.
        slots: (n_slots, 16) int32, see barkfast_kernels.slots.
        tokens: (n_slots, block_size) int32, the tokens that each slot's job has drawn.
    """

    x: Tensor
    keys: Tensor
    values: Tensor
    slots: Tensor
    tokens: Tensor

    @classmethod
    def allocate(cls, config: GPTConfig, n_slots: int, device: torch.device, dtype: torch.dtype) -> "State":
        """Allocate, with all slots idle."""
        shape = (config.n_layer, n_slots, config.n_head, config.block_size, config.head_dim)
        return cls(
            x=torch.zeros(n_slots, config.n_embd, device=device),
            keys=torch.zeros(shape, device=device, dtype=dtype),
            values=torch.zeros(shape, device=device, dtype=dtype),
            slots=torch.zeros(n_slots, WORDS.value, dtype=torch.int32, device=device),
            tokens=torch.zeros(n_slots, config.block_size, dtype=torch.int32, device=device),
        )


def pinned(*shape: int, device: torch.device) -> Tensor:
    """A pinned int32 host buffer for asynchronous copies to and from `device`."""
    return torch.zeros(shape, dtype=torch.int32, pin_memory=device.type == "cuda")


class Snapshot:
    """An asynchronous copy of `slots` and `tokens` to the host."""

    def __init__(self, state: State) -> None:
        device = state.slots.device
        self._slots = pinned(*state.slots.shape, device=device)
        self._tokens = pinned(*state.tokens.shape, device=device)
        self._arrived = torch.cuda.Event() if device.type == "cuda" else None
        self.number = 0

    def take(self, state: State, number: int) -> "Snapshot":
        """Start the copy; it is the decoder's `number`-th snapshot."""
        self._slots.copy_(state.slots, non_blocking=True)
        self._tokens.copy_(state.tokens, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()
        self.number = number
        return self

    def wait(self) -> None:
        """Wait until the copy is complete."""
        if self._arrived is not None:
            self._arrived.synchronize()

    def status(self, slot: int) -> int:
        """The slot's status when the snapshot was taken."""
        return int(self._slots[slot, STATUS.value])

    def drawn(self, slot: int) -> int:
        """How many tokens the slot had drawn."""
        return int(self._slots[slot, DRAWN.value])

    def tokens(self, slot: int, first: int, end: int) -> Tensor:
        """(end - first,) int32: a copy of the tokens drawn at steps first..end-1."""
        return self._tokens[slot, first:end].clone()
