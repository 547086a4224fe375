"""Output matrix of a decode step's attention, added to the residual stream."""

from barkfast_kernels.attention_out.reference import attention_out_reference
from barkfast_kernels.attention_out.triton import attention_out

__all__ = ["attention_out", "attention_out_reference"]
