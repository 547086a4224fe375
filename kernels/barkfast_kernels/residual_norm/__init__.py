"""The residual stream takes in a layer's output and is normalised for the next layer."""

from barkfast_kernels.residual_norm.reference import residual_norm_reference
from barkfast_kernels.residual_norm.triton import residual_norm

__all__ = ["residual_norm", "residual_norm_reference"]
