from barkfast_kernels.embed_prompt.reference import embed_prompt_reference
from barkfast_kernels.embed_prompt.triton import embed_prompt

__all__ = ["embed_prompt", "embed_prompt_reference"]
