from barkfast_kernels.random.reference import gumbel_noise_reference, gumbel_of_word_reference, philox_reference
from barkfast_kernels.random.triton import gumbel_noise, gumbel_of_word

__all__ = [
    "gumbel_noise",
    "gumbel_noise_reference",
    "gumbel_of_word",
    "gumbel_of_word_reference",
    "philox_reference",
]
