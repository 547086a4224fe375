"""Layer norm, first matrix of the MLP and GELU of a decode step's tokens."""

from barkfast_kernels.norm_fc_gelu.reference import norm_fc_gelu_reference
from barkfast_kernels.norm_fc_gelu.triton import norm_fc_gelu

__all__ = ["norm_fc_gelu", "norm_fc_gelu_reference"]
