"""Small things about the device: which one is current, what it can do, how the host writes to it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from barkfast_kernels.variant import DEFAULT, Variant


@dataclass(frozen=True)
class Options:
    """How kernels are launched; what they compute does not depend on it.

    Args:
        graphs: capture and replay CUDA graphs.
        pdl: programmatic dependent launch, for compute capability 9.0 and newer.
        variant: how the kernels of a step of one to eight sequences are run.
    """

    graphs: bool = True
    pdl: bool = False
    variant: Variant = DEFAULT

    @classmethod
    def for_device(cls, device: torch.device) -> "Options":
        """All that the device can do."""
        return cls(pdl=device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0))


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make `device` current, without autograd."""
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.inference_mode())
        yield


def upload(target: Tensor, source: Tensor) -> None:
    """Copy a small host tensor to the device without waiting for either."""
    if target.is_cuda:
        # The allocator of pinned memory keeps the buffer until the copy has been made.
        source = source.pin_memory()
    target.copy_(source, non_blocking=True)
