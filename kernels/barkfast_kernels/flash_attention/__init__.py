"""Self-attention of one whole sequence, for prefill and for the fine network."""

from barkfast_kernels.flash_attention.reference import flash_attention_reference, prefill_attention_reference
from barkfast_kernels.flash_attention.triton import flash_attention, prefill_attention

__all__ = ["flash_attention", "flash_attention_reference", "prefill_attention", "prefill_attention_reference"]
