from barkfast_kernels.sample.reference import sample_reference
from barkfast_kernels.sample.triton import sample

__all__ = ["sample", "sample_reference"]
