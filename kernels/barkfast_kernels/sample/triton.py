import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.functions import is_filtered, load_fresh, load_word, pdl_launch, pdl_wait, prefetch_l2
from barkfast_kernels.launch import INTERPRETED, launch, next_power_of_2
from barkfast_kernels.sample.filters import HIGHEST, LOWEST, filter_threshold
from barkfast_kernels.slots import (
    DRAWN,
    FAILED,
    FINISHED,
    FORCED,
    HAS_STOP,
    LIMIT,
    MIN_P_F,
    PHASE,
    POSITION,
    RUNNING,
    STATUS,
    STOPPED,
    TEMPERATURE_F,
    TOP_K,
    TOP_P_F,
    WORDS,
)
from barkfast_kernels.variant import DEFAULT, Variant


@triton.jit
def temper(value, temperature):
    """value / temperature, rounded like torch's division; `value` itself where temperature is 0 (greedy)."""
    # A temperature below 1e-30 is practically greedy, and the quotient would overflow.
    divisor = tl.where(temperature == 0.0, 1.0, tl.maximum(temperature, 1e-30))
    return tl.div_rn(value, tl.broadcast_to(divisor, value.shape))


@triton.jit
def load_slices(slices, N_SLICES: tl.constexpr):
    """First vocabulary row and width of each slice, as two tuples of scalars."""
    firsts, widths = (), ()
    for i in tl.static_range(N_SLICES):
        firsts = firsts + (tl.load(slices + 2 * i),)
        widths = widths + (tl.load(slices + 2 * i + 1),)
    return firsts, widths


@triton.jit
def is_finite(value):
    """Whether float32 `value` is neither NaN nor infinite."""
    return tl.abs(value) <= HIGHEST


@triton.jit(do_not_specialize=["batch", "ahead_bytes"])
def _sample_kernel(
    logits,  # (batch, N_CANDIDATES) float32
    noise,  # (batch, N_CANDIDATES) float32
    slices,  # (N_SLICES, 2) int32
    tokens,  # (n_slots, BLOCK_SIZE) int32
    wte,  # (vocabulary, N_EMBD)
    wpe,  # (BLOCK_SIZE, N_EMBD)
    x,  # (n_slots, N_EMBD) float32, out
    rows,  # (batch,) int32
    slots,  # (n_slots, WORDS) int32
    ahead,  # matrix to prefetch, see prefetch_l2
    ahead_bytes,
    batch,
    N_SLICES: tl.constexpr,
    N_CANDIDATES: tl.constexpr,
    N_EMBD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    STOP_ROW: tl.constexpr,
    FILTERED: tl.constexpr,
    ONLY_FILTERED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TRIGGER_FIRST: tl.constexpr,
    ONE_TRIP: tl.constexpr,
    AHEAD: tl.constexpr,
    PDL: tl.constexpr,
):
    pdl_launch(PDL and TRIGGER_FIRST)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK_V)[None, :]
    if ONE_TRIP:
        slot = tl.load(rows + row, mask=row < batch, other=-1)
        firsts, widths = load_slices(slices, N_SLICES)
    prefetch_l2(ahead, ahead_bytes, AHEAD)
    pdl_launch(PDL and not TRIGGER_FIRST)
    pdl_wait(PDL)
    logits_at = (logits + row.to(tl.int64) * N_CANDIDATES) + column
    noise_at = (noise + row.to(tl.int64) * N_CANDIDATES) + column
    if ONE_TRIP:
        # All columns, loaded together with the words that say which of them are candidates.
        inside = (row < batch) & (column < N_CANDIDATES)
        value = load_fresh(logits_at, inside, True)
        drawn_noise = load_fresh(noise_at, inside, True)
    else:
        slot = tl.load(rows + row, mask=row < batch, other=-1)
        firsts, widths = load_slices(slices, N_SLICES)
    words = slots + slot * WORDS
    running = load_word(slots, slot, STATUS, ONE_TRIP) == RUNNING
    if ONLY_FILTERED:
        running = running & is_filtered(slots, slot, ONE_TRIP)
    drawn = load_word(slots, slot, DRAWN, ONE_TRIP)
    position = load_word(slots, slot, POSITION, ONE_TRIP)
    limit = load_word(slots, slot, LIMIT, ONE_TRIP)
    temperature = load_word(slots, slot, TEMPERATURE_F, ONE_TRIP).to(tl.float32, bitcast=True)
    forced = running & (drawn < load_word(slots, slot, FORCED, ONE_TRIP))
    own = (load_word(slots, slot, PHASE, ONE_TRIP) + drawn) % N_SLICES
    first, width = firsts[0], widths[0]
    for i in tl.static_range(1, N_SLICES):
        first = tl.where(own == i, firsts[i], first)
        width = tl.where(own == i, widths[i], width)

    candidate = running & (column < width)
    if STOP_ROW >= 0:
        has_stop = running & (load_word(slots, slot, HAS_STOP, ONE_TRIP) != 0)
        min_p = load_word(slots, slot, MIN_P_F, ONE_TRIP).to(tl.float32, bitcast=True)
        candidate |= has_stop & (column == width)
    if FILTERED:
        top_p = load_word(slots, slot, TOP_P_F, ONE_TRIP).to(tl.float32, bitcast=True)
        top_k = tl.where(running, load_word(slots, slot, TOP_K, ONE_TRIP), 0)
    # Its address is known only now, and its value is not needed before the end.
    token_at = tokens + slot.to(tl.int64) * BLOCK_SIZE + drawn
    forced_token = load_fresh(token_at, forced & (drawn < BLOCK_SIZE), ONE_TRIP)
    if not ONE_TRIP:
        value = tl.load(logits_at, mask=candidate, other=0.0)
        drawn_noise = tl.load(noise_at, mask=candidate, other=0.0)
    finite = is_finite(value)
    broken = tl.max((candidate & (finite == 0)).to(tl.int32), axis=1)[:, None] > 0
    value = tl.where(candidate & finite, value, -float("inf"))
    if FILTERED:
        value = tl.where(value >= filter_threshold(value, top_p, top_k), value, -float("inf"))
    tempered = temper(value, temperature)
    score = tempered + tl.where(candidate & (temperature != 0.0), drawn_noise, 0.0)
    best = tl.argmax(score, axis=1)[:, None]
    token = first + best

    ended = tl.zeros((ROWS, 1), tl.int1)
    if STOP_ROW >= 0:
        # The bounds LOWEST and 1.0 matter only for rows that are not running: they prevent NaN.
        largest = tl.maximum(tl.max(tempered, axis=1)[:, None], LOWEST)
        mass = tl.exp(tempered - largest)
        total = tl.sum(mass, axis=1)[:, None]
        stop_mass = tl.sum(tl.where(column == width, mass, 0.0), axis=1)[:, None]
        chosen = has_stop & (best == width)
        stop_probability = tl.where(temperature == 0.0, chosen.to(tl.float32), stop_mass / tl.maximum(total, 1.0))
        likely = has_stop & (min_p <= 1.0) & (stop_probability >= min_p)
        ended = (chosen | likely) & (forced == 0)
        token = tl.where(ended, STOP_ROW, token)
    token = tl.where(forced, forced_token, token)

    sound = running & (broken == 0)
    status = tl.where(ended, STOPPED, tl.where(drawn + 1 >= limit, FINISHED, RUNNING))
    tl.store(words + STATUS, tl.where(broken, FAILED, status), mask=running)
    tl.store(words + DRAWN, drawn + 1, mask=sound)
    tl.store(words + POSITION, position + 1, mask=sound)
    tl.store(token_at, token, mask=sound & (drawn < BLOCK_SIZE))

    k = tl.arange(0, BLOCK_K)[None, :]
    moves = sound & (ended == 0) & (position + 1 < BLOCK_SIZE) & (k < N_EMBD)
    embedded = tl.load(wte + token.to(tl.int64) * N_EMBD + k, mask=moves, other=0.0).to(tl.float32)
    placed = tl.load(wpe + (position + 1) * N_EMBD + k, mask=moves, other=0.0).to(tl.float32)
    tl.store(x + slot * N_EMBD + k, embedded + placed, mask=moves)


def sample(
    logits: Tensor,
    noise: Tensor,
    slices: Tensor,
    stop_row: int,
    tokens: Tensor,
    wte: Tensor,
    wpe: Tensor,
    x: Tensor,
    rows: Tensor,
    slots: Tensor,
    *,
    filtered: bool,
    only_filtered: bool = False,
    pdl: bool = False,
    variant: Variant = DEFAULT,
    ahead: Tensor | None = None,
) -> None:
    """Draw each running slot's next token, update the slot's state, and embed the token.

    Slots with HAS_STOP have the stop token as candidate `width`. Such a slot is STOPPED when it is drawn, or when its
    probability after filters and temperature reaches MIN_P, whatever was drawn; then `stop_row` is written as the
    token and `x` is not written. A forced token comes from `tokens` and never stops a slot. If any candidate is NaN or
    infinite, the slot is FAILED and nothing else changes.

    Args:
        logits, noise: (batch, n_candidates) float32, from `norm_head` or `linear_head`.
        slices: (n_slices, 2) int32, first vocabulary row and width.
        stop_row: vocabulary row of the stop token; -1 if there is none.
        tokens: (n_slots, block_size) int32; token DRAWN is written, as its vocabulary row.
        wte, wpe: (vocabulary, n_embd), (block_size, n_embd).
        x: (n_slots, n_embd) float32, out: embedding of the new token, unless its position is beyond block_size.
        rows: (batch,) int32.
        slots: (n_slots, WORDS) int32; STATUS, DRAWN and POSITION are written.
        filtered: whether to apply TOP_P and TOP_K; slots that have them off draw the same token either way.
        only_filtered: skip rows without a filter: hopper's head_draw handles them.
        pdl, variant, ahead: see `launch`.
    """
    batch, candidates = rows.shape[0], logits.shape[1]
    block_v = next_power_of_2(candidates)
    rows_each = min(triton.next_power_of_2(batch), max(1, (1 << 20) // block_v)) if INTERPRETED else 1
    launch(
        _sample_kernel,
        (triton.cdiv(batch, rows_each),),
        {
            "logits": logits,
            "noise": noise,
            "slices": slices,
            "tokens": tokens,
            "wte": wte,
            "wpe": wpe,
            "x": x,
            "rows": rows,
            "slots": slots,
            "batch": batch,
        },
        {
            "N_SLICES": slices.shape[0],
            "N_CANDIDATES": candidates,
            "N_EMBD": x.shape[1],
            "BLOCK_SIZE": tokens.shape[1],
            "STOP_ROW": stop_row,
            "FILTERED": filtered,
            "ONLY_FILTERED": only_filtered,
            "ROWS": rows_each,
            "BLOCK_V": block_v,
            "BLOCK_K": next_power_of_2(x.shape[1]),
        },
        num_warps=max(4, min(32, block_v // 512)),
        pdl=pdl,
        variant=variant,
        ahead=ahead,
    )
