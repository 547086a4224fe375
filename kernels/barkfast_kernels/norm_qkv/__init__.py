"""Layer norm, query, key and value of a decode step's tokens; keys and values are stored in the KV cache."""

from barkfast_kernels.norm_qkv.reference import norm_qkv_reference
from barkfast_kernels.norm_qkv.triton import norm_qkv

__all__ = ["norm_qkv", "norm_qkv_reference"]
