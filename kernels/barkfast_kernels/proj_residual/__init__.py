"""Second matrix of the MLP of a decode step's tokens, added to the residual stream."""

from barkfast_kernels.proj_residual.reference import proj_residual_reference
from barkfast_kernels.proj_residual.triton import proj_residual

__all__ = ["proj_residual", "proj_residual_reference"]
