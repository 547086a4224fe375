"""Compile-time constants of head.cu besides the network's shape: the words of a slot, and its size limits."""

from barkfast_kernels import slots

# Limits: rows of a batch, slices of a vocabulary, blocks, and a block's weight rows of one slice.
MOST_BATCH = 8
MOST_SLICES = 8
MOST_BLOCKS = 160
MOST_HEAD_ROWS = 128
# Weight rows that are copied and multiplied together: a divisor of MOST_HEAD_ROWS and of 32.
ROWS_AT_ONCE = 16

_WORDS = ("DRAWN", "LIMIT", "PHASE", "SEED_LOW", "SEED_HIGH", "FIRST_DRAW", "TEMPERATURE_F", "MIN_P_F", "HAS_STOP")
_WORDS += ("TOP_K", "TOP_P_F", "FORCED", "STOPPED", "FINISHED", "FAILED")
HEAD_DEFINITIONS = {name: int(getattr(slots, name).value) for name in _WORDS} | {
    "MOST_BATCH": MOST_BATCH,
    "MOST_SLICES": MOST_SLICES,
    "MOST_BLOCKS": MOST_BLOCKS,
    "MOST_HEAD_ROWS": MOST_HEAD_ROWS,
    "ROWS_AT_ONCE": ROWS_AT_ONCE,
}
