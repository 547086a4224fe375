import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.functions import (
    is_filtered,
    layer_norm_row,
    load_fresh,
    load_word,
    pdl_launch,
    pdl_wait,
    prefetch_l2,
    running,
)
from barkfast_kernels.launch import INTERPRETED, launch, multiprocessors, next_power_of_2
from barkfast_kernels.random.triton import gumbel_noise
from barkfast_kernels.slots import DRAWN, FIRST_DRAW, PHASE, SEED_HIGH, SEED_LOW, TEMPERATURE_F
from barkfast_kernels.variant import DEFAULT, Variant


@triton.jit
def load_draw(slots, slot, ONE_TRIP: tl.constexpr):
    """Key of a slot's next random numbers, and its temperature; `slot` is a scalar or a block, -1 gives zeros.

    Returns: the two halves of the seed, the number of the draw (int32), the temperature (float32).
    """
    draw = load_word(slots, slot, FIRST_DRAW, ONE_TRIP) + load_word(slots, slot, DRAWN, ONE_TRIP)
    temperature = load_word(slots, slot, TEMPERATURE_F, ONE_TRIP).to(tl.float32, bitcast=True)
    return load_word(slots, slot, SEED_LOW, ONE_TRIP), load_word(slots, slot, SEED_HIGH, ONE_TRIP), draw, temperature


@triton.jit
def store_candidates(logits, noise, offsets, values, vocabulary, mask, drawing, STAGE: tl.constexpr):
    """Store logits and their noise for sampling (0 for greedy slots).

    Args:
        offsets: of the values in `logits` and `noise`, both float32; they broadcast with the next arguments.
        values: the logits, float32.
        vocabulary: int32 block, the vocabulary row of each value; indexes its noise.
        drawing: from `load_draw`.
    """
    seed_low, seed_high, draw, temperature = drawing
    tl.store(logits + offsets, values, mask=mask)
    drawn_noise = gumbel_noise(seed_low, seed_high, STAGE, draw, vocabulary)
    tl.store(noise + offsets, tl.where(temperature == 0.0, 0.0, drawn_noise), mask=mask)


@triton.jit(do_not_specialize=["batch", "ahead_bytes"])
def _norm_head_kernel(
    x,  # (n_slots, N_EMBD) float32
    norm_weight,  # (N_EMBD,)
    norm_bias,  # (N_EMBD,)
    weight,  # (vocabulary, N_EMBD)
    slices,  # (n_slices, 2) int32
    logits,  # (batch, N_CANDIDATES) float32, out
    noise,  # (batch, N_CANDIDATES) float32, out
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    ahead,  # matrix to prefetch, see prefetch_l2
    ahead_bytes,
    batch,
    N_SLICES: tl.constexpr,
    N_EMBD: tl.constexpr,
    N_CANDIDATES: tl.constexpr,
    STOP_ROW: tl.constexpr,
    STAGE: tl.constexpr,
    ONLY_FILTERED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TRIGGER_FIRST: tl.constexpr,
    ONE_TRIP: tl.constexpr,
    AHEAD: tl.constexpr,
    PDL: tl.constexpr,
):
    pdl_launch(PDL and TRIGGER_FIRST)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    own = tl.program_id(1)
    first = tl.load(slices + own * 2)
    width = tl.load(slices + own * 2 + 1)
    vocabulary = first + column
    competes = column < width
    if STOP_ROW >= 0:
        vocabulary = tl.where(column == width, STOP_ROW, vocabulary)
        competes = column <= width
    k = tl.arange(0, BLOCK_K)
    inside = k < N_EMBD
    tile = tl.load(
        weight + vocabulary[:, None].to(tl.int64) * N_EMBD + k[None, :],
        mask=competes[:, None] & inside[None, :],
        other=0.0,
    )
    gain = tl.load(norm_weight + k, mask=inside, other=0.0).to(tl.float32)
    bias = gain
    if HAS_BIAS:
        bias = tl.load(norm_bias + k, mask=inside, other=0.0).to(tl.float32)
    if ONE_TRIP:
        listed = tl.load(rows)
    prefetch_l2(ahead, ahead_bytes, AHEAD)
    pdl_launch(PDL and not TRIGGER_FIRST)
    pdl_wait(PDL)
    if not ONE_TRIP:
        listed = tl.load(rows)
    for row in range(batch):
        # All loaded together with the status, not after it.
        place = tl.maximum(listed, 0)
        residual = load_fresh(x + place * N_EMBD + k, inside, ONE_TRIP)
        runs = running(slots, listed, ONE_TRIP) >= 0
        if ONLY_FILTERED:
            runs = runs & is_filtered(slots, place, ONE_TRIP)
        turn = load_word(slots, place, PHASE, ONE_TRIP) + load_word(slots, place, DRAWN, ONE_TRIP)
        drawing = load_draw(slots, place, ONE_TRIP)
        # For the next row.
        listed = load_fresh(rows + row + 1, row + 1 < batch, ONE_TRIP)
        competes_now = runs & (turn % N_SLICES == own)
        if ONE_TRIP or competes_now:
            h = layer_norm_row(residual, gain, bias, inside, N_EMBD, HAS_BIAS)
            values = tl.sum(tile.to(tl.float32) * h[None, :], axis=1)
            offsets = row * N_CANDIDATES + column
            store_candidates(logits, noise, offsets, values, vocabulary, competes & competes_now, drawing, STAGE)


def tile_rows(candidates: int, n_embd: int, sms: int) -> int:
    """Weight rows per program: the most for which the busiest multiprocessor has at most 10% above the minimum.

    At most 16 * 1024 weights (but at least 4 rows), which a program holds in registers.
    """
    busiest = {}
    for size in (4, 8, 16, 32):
        if size == 4 or size * next_power_of_2(n_embd) <= 16 * 1024:
            busiest[size] = triton.cdiv(triton.cdiv(candidates, size), sms) * size
    return max(size for size, load in busiest.items() if load <= 1.1 * min(busiest.values()))


def norm_head(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    slices: Tensor,
    stop_row: int,
    logits: Tensor,
    noise: Tensor,
    rows: Tensor,
    slots: Tensor,
    *,
    stage: int,
    only_filtered: bool = False,
    pdl: bool = False,
    variant: Variant = DEFAULT,
    ahead: Tensor | None = None,
) -> None:
    """Final layer norm, the logits of the candidates for the next token, and their noise for sampling.

    A slot draws from slice (PHASE + DRAWN) % n_slices: column c below its width is vocabulary row first + c; column
    `width` is the stop token, whether or not the slot has HAS_STOP. Columns beyond are not written.

    Args:
        x: (n_slots, n_embd) float32.
        norm_weight, norm_bias: (n_embd,), bias optional.
        weight: (vocabulary, n_embd).
        slices: (n_slices, 2) int32, first vocabulary row and width; constant, read before earlier kernels end.
        stop_row: vocabulary row of the stop token; -1 if there is none.
        logits, noise: (batch, largest width + 1 if there is a stop token) float32, out. Noise is 0 for greedy slots.
        rows: (batch,) int32.
        slots: (n_slots, WORDS) int32.
        stage: number of the network, so that each network has its own random numbers.
        only_filtered: skip rows without a top-k or top-p filter: hopper's head_draw handles them.
        pdl, variant, ahead: see `launch`.
    """
    n_embd, candidates = x.shape[1], logits.shape[1]
    block_k = next_power_of_2(n_embd)
    if INTERPRETED:
        block_n = min(triton.next_power_of_2(candidates), max(16, (1 << 22) // block_k))
    else:
        block_n = tile_rows(candidates, n_embd, multiprocessors(x.device))
    launch(
        _norm_head_kernel,
        (triton.cdiv(candidates, block_n), slices.shape[0]),
        {
            "x": x,
            "norm_weight": norm_weight,
            "norm_bias": norm_weight if norm_bias is None else norm_bias,
            "weight": weight,
            "slices": slices,
            "logits": logits,
            "noise": noise,
            "rows": rows,
            "slots": slots,
            "batch": rows.shape[0],
        },
        {
            "N_SLICES": slices.shape[0],
            "N_EMBD": n_embd,
            "N_CANDIDATES": candidates,
            "STOP_ROW": stop_row,
            "STAGE": stage,
            "ONLY_FILTERED": only_filtered,
            "HAS_BIAS": norm_bias is not None,
            "BLOCK_N": block_n,
            "BLOCK_K": block_k,
        },
        num_warps=max(1, min(8, block_n * block_k // 2048)),
        pdl=pdl,
        variant=variant,
        ahead=ahead,
    )
