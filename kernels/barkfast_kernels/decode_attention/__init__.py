"""Attention of a decode step's tokens over their slots' KV caches, in splits that the next kernel combines."""

from barkfast_kernels.decode_attention.reference import combine_splits_reference, decode_attention_reference
from barkfast_kernels.decode_attention.triton import combine_splits, decode_attention

__all__ = ["combine_splits", "combine_splits_reference", "decode_attention", "decode_attention_reference"]
