"""Top-p and top-k without sorting: each is a threshold, found by 32 bisections of the float32 range."""

import triton
import triton.language as tl

# The finite float32 lowest and highest.
LOWEST = tl.constexpr(-3.4028234663852886e38)
HIGHEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def _to_key(value):
    """Map float32 to int32 so that the order is kept."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _from_key(key):
    """Inverse of `_to_key`."""
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def _halfway(low, high):
    """The mean of two int32, rounded down, without overflow."""
    return (low & high) + ((low ^ high) >> 1)


@triton.jit
def _top_p_threshold(value, weight, largest, bound):
    """The smallest float for which the values above it weigh at most `bound` in total."""
    low = _to_key(tl.full(largest.shape, -float("inf"), tl.float32))
    high = _to_key(largest)
    for _ in range(32):
        middle = _halfway(low, high)
        above = tl.sum(tl.where(value > _from_key(middle), weight, 0.0), axis=1)[:, None]
        enough = above <= bound
        low = tl.where(enough, low, middle)
        high = tl.where(enough, middle, high)
    return _from_key(high)


@triton.jit
def _top_k_threshold(value, largest, count):
    """The largest float that at least `count` values reach; -inf if there are fewer values."""
    low = _to_key(tl.full(largest.shape, -float("inf"), tl.float32))
    high = _to_key(largest) + 1
    for _ in range(32):
        middle = _halfway(low, high)
        reached = tl.sum((value >= _from_key(middle)).to(tl.int32), axis=1)[:, None] >= count
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle)
    return _from_key(low)


@triton.jit
def filter_threshold(value, top_p, top_k):
    """The logit that a candidate must reach to pass top-p, then top-k; -inf where both are off. (ROWS, 1) float32.

    Top-p keeps a candidate if the strictly likelier ones have at most `top_p` of the mass at temperature 1. Of the
    rest, top-k keeps those that reach the k-th largest. Equal logits are all kept or all removed, so ties at the
    threshold survive; in a filter that sorts, the sort order decides. A mass within float32 rounding of `top_p` may
    fall on either side.

    Args:
        value: (ROWS, BLOCK_V) float32, finite, or -inf where there is no candidate.
        top_p: (ROWS, 1) float32, above 1 is off.
        top_k: (ROWS, 1) int32, 0 is off.
    """
    largest = tl.maximum(tl.max(value, axis=1)[:, None], LOWEST)
    threshold = tl.full(largest.shape, -float("inf"), tl.float32)
    if tl.max(tl.where(top_p <= 1.0, 1, 0)) > 0:
        weight = tl.exp(value - largest)
        bound = top_p * tl.sum(weight, axis=1)[:, None]
        threshold = tl.where(top_p <= 1.0, _top_p_threshold(value, weight, largest, bound), threshold)
    if tl.max(top_k) > 0:
        # Top-p leaves the largest values. If it leaves at least k, their k-th largest is the k-th largest of all.
        threshold = tl.where(top_k > 0, tl.maximum(threshold, _top_k_threshold(value, largest, top_k)), threshold)
    return threshold
