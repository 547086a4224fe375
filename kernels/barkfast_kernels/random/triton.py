"""Counter-based Gumbel noise: the same seed, stage, draw and index give the same noise in any kernel and batch."""

import triton
import triton.language as tl


@triton.jit
def gumbel_of_word(word):
    """Standard Gumbel noise, float32 and always finite, from uint32 random bits; decreases with `word`."""
    # A token of probability p wins only if its exponential variate is of the order of p, so small variates must keep
    # all their bits. float32 is precise near 0 but not near 1. Therefore the variate is -log(1 - v) with a small v,
    # and where 1 - v would round v away, the series of -log(1 - v).
    v = tl.minimum((word.to(tl.float32) + 0.5) * (2.0**-32), 1.0 - 2.0**-24)
    series = v * (1.0 + v * (0.5 + v * (1.0 / 3.0)))
    exponential = tl.where(v < 2.0**-10, series, -tl.log(1.0 - v))
    return -tl.log(exponential)


@triton.jit
def gumbel_noise(seed_low, seed_high, stage, draw, index):
    """Standard Gumbel noise, float32, in the shape that the arguments broadcast to.

    From the first output word of Philox-4x32-10 with key (seed_low, seed_high) and counter (index, draw, stage, 0).

    Args:
        seed_low, seed_high, draw, index: int32 scalars or blocks; their bits are taken as uint32.
        stage: int32 scalar or block, or a constexpr.
    """
    word, _, _, _ = tl.philox_impl(
        index.to(tl.uint32, bitcast=True),
        draw.to(tl.uint32, bitcast=True),
        tl.full(index.shape, stage, tl.uint32),
        tl.full(index.shape, 0, tl.uint32),
        seed_low.to(tl.uint32, bitcast=True),
        seed_high.to(tl.uint32, bitcast=True),
    )
    return gumbel_of_word(word)
