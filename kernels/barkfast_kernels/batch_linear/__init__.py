"""The linear layers of a decode step for large batches, with matrix instructions."""

from barkfast_kernels.batch_linear.reference import (
    linear_gelu_reference,
    linear_head_reference,
    linear_partial_reference,
    linear_qkv_reference,
)
from barkfast_kernels.batch_linear.triton import linear_gelu, linear_head, linear_partial, linear_qkv, partial_splits

__all__ = [
    "linear_gelu",
    "linear_gelu_reference",
    "linear_head",
    "linear_head_reference",
    "linear_partial",
    "linear_partial_reference",
    "linear_qkv",
    "linear_qkv_reference",
    "partial_splits",
]
