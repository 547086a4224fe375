"""State of each slot on the device: one row of 16 words, so that starting a sequence takes one 64-byte copy.

A slot holds one sequence. Kernels take `slots` (n_slots, WORDS) int32 and `rows` (batch,) int32, the slot of each row
of the batch. A row of -1, or one whose slot is not RUNNING, is skipped and its outputs are not written. Words named
*_F hold the bits of a float32.
"""

import struct

import torch
import triton.language as tl
from torch import Tensor

WORDS = tl.constexpr(16)

POSITION = tl.constexpr(0)  # position of the token being processed; its key and value are stored there
DRAWN = tl.constexpr(1)  # tokens drawn so far
LIMIT = tl.constexpr(2)  # FINISHED after this many
STATUS = tl.constexpr(3)
PHASE = tl.constexpr(4)  # token i is drawn from slice (PHASE + i) % n_slices
SEED_LOW = tl.constexpr(5)
SEED_HIGH = tl.constexpr(6)
FIRST_DRAW = tl.constexpr(7)  # token i is drawn with random number FIRST_DRAW + i
TEMPERATURE_F = tl.constexpr(8)  # 0 is greedy
TOP_K = tl.constexpr(9)  # 0 is off
TOP_P_F = tl.constexpr(10)  # 2 is off
MIN_P_F = tl.constexpr(11)  # stop when the stop token is this likely; 2 is off
HAS_STOP = tl.constexpr(12)  # whether the stop token can be drawn
FORCED = tl.constexpr(13)  # the first FORCED tokens are taken from `tokens`, not drawn

# Values of STATUS.
IDLE = tl.constexpr(0)
RUNNING = tl.constexpr(1)
STOPPED = tl.constexpr(2)  # the stop token was drawn or reached MIN_P: token DRAWN - 1 is not part of the result
FINISHED = tl.constexpr(3)
FAILED = tl.constexpr(4)  # logits were not finite when token DRAWN was to be drawn


def _float_bits(value: float) -> int:
    return struct.unpack("<i", struct.pack("<f", value))[0]


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def pack_slot(
    *,
    position: int,
    limit: int,
    seed: int = 0,
    first_draw: int = 0,
    phase: int = 0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 2.0,
    min_p: float = 2.0,
    has_stop: bool = False,
    forced: int = 0,
    status: int = RUNNING.value,
) -> Tensor:
    """One row of `slots` as a (WORDS,) int32 tensor on the CPU; `seed` is taken modulo 2**64."""
    words = [0] * WORDS.value
    words[POSITION.value], words[LIMIT.value], words[STATUS.value] = position, limit, status
    words[PHASE.value], words[FIRST_DRAW.value] = phase, first_draw
    words[SEED_LOW.value] = _signed(seed & 0xFFFFFFFF)
    words[SEED_HIGH.value] = _signed(seed >> 32 & 0xFFFFFFFF)
    words[TEMPERATURE_F.value], words[TOP_K.value] = _float_bits(temperature), top_k
    words[TOP_P_F.value], words[MIN_P_F.value] = _float_bits(top_p), _float_bits(min_p)
    words[HAS_STOP.value], words[FORCED.value] = int(has_stop), forced
    return torch.tensor(words, dtype=torch.int32)
