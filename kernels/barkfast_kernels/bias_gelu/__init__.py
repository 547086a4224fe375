"""The nonlinearity between the two matrices of an MLP."""

from barkfast_kernels.bias_gelu.reference import bias_gelu_reference
from barkfast_kernels.bias_gelu.triton import bias_gelu

__all__ = ["bias_gelu", "bias_gelu_reference"]
