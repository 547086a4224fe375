from barkfast_kernels.embed_codes.reference import embed_codes_reference
from barkfast_kernels.embed_codes.triton import embed_codes

__all__ = ["embed_codes", "embed_codes_reference"]
