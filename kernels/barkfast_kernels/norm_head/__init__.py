from barkfast_kernels.norm_head.reference import norm_head_reference
from barkfast_kernels.norm_head.triton import load_draw, norm_head, store_candidates

__all__ = ["load_draw", "norm_head", "norm_head_reference", "store_candidates"]
