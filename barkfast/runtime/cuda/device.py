"""Device helpers: launch options, the current device, and uploads from the host."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from barkfast.config import GPTConfig
from barkfast.runtime.cuda.tuned import LARGE, choose_variant
from barkfast_kernels.variant import DEFAULT, Variant


@dataclass(frozen=True)
class Options:
    """How kernels are launched; what they compute does not depend on it.

    Args:
        graphs: capture and replay CUDA graphs.
        pdl: programmatic dependent launch, for compute capability 9.0 and newer.
        variant: which kernels run a decode step of one to eight sequences, and how.
    """

    graphs: bool = True
    pdl: bool = False
    variant: Variant = DEFAULT

    @classmethod
    def for_device(
        cls,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
        config: GPTConfig = LARGE,
        int8: bool = False,
        n_slots: int = 1,
    ) -> "Options":
        """All that the device supports, with the kernels measured fastest there.

        Args:
            dtype: the network's storage dtype; None for the default kernels, e.g. for a network without decode steps.
            config: its sizes, which the measured kernels may not support.
            int8: whether its layers' matrices are int8.
            n_slots: sequences at a time.

        Raises: InputError for an unknown variant in $BARKFAST_VARIANT.
        """
        pdl = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        if dtype is None:
            return cls(pdl=pdl)
        return cls(pdl=pdl, variant=choose_variant(device, dtype, config=config, int8=int8, n_slots=n_slots))


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make `device` current and disable autograd within the block."""
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.inference_mode())
        yield


def upload(target: Tensor, source: Tensor) -> None:
    """Copy a small host tensor to the device, asynchronously."""
    if target.is_cuda:
        # The allocator of pinned memory does not reuse the buffer before the copy is done.
        source = source.pin_memory()
    target.copy_(source, non_blocking=True)
