from barkfast_kernels.sample_codes.reference import sample_codes_reference
from barkfast_kernels.sample_codes.triton import sample_codes

__all__ = ["sample_codes", "sample_codes_reference"]
