"""The codec's convolutions on a GPU: full float32 precision and deterministic results."""

from contextlib import AbstractContextManager

import torch


def exact_convolutions() -> AbstractContextManager[None]:
    """Within the block, cuDNN uses neither TF32 (float32 with 10 mantissa bits) nor nondeterministic algorithms."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
