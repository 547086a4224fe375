"""Convolutions of the codec on a GPU: float32 that is float32, and the same samples every time."""

from contextlib import AbstractContextManager

import torch


def exact_convolutions() -> AbstractContextManager[None]:
    """Within the block, cuDNN neither rounds float32 to TF32's 10 bits nor picks algorithms whose sums change order."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
