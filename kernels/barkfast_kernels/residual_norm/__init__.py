"""Add a layer's output to the residual stream and normalise the sum for the next layer."""

from barkfast_kernels.residual_norm.reference import residual_norm_reference
from barkfast_kernels.residual_norm.triton import residual_norm

__all__ = ["residual_norm", "residual_norm_reference"]
