"""Device functions that several kernels share."""

import triton
import triton.language as tl

from barkfast_kernels.slots import RUNNING, STATUS, TOP_K, TOP_P_F, WORDS


@triton.jit
def pdl_launch(PDL: tl.constexpr):
    """Let the next kernel start: before its `pdl_wait` it may only load what no kernel writes (weights)."""
    # Triton's own gdc_launch_dependents and gdc_wait do the same, but do not compile in Triton 3.4.
    if PDL:
        tl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def pdl_wait(PDL: tl.constexpr):
    """Wait until the kernels before this one have ended and their writes are visible.

    Every program must call this, even one that has nothing to do: a grid whose programs exit early would let its
    successor start before its predecessor has ended.
    """
    if PDL:
        tl.inline_asm_elementwise("griddepcontrol.wait; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def prefetch_l2(ahead, ahead_bytes, THREADS: tl.constexpr):
    """Prefetch the weights of a later kernel into the L2 cache; called before `pdl_wait`.

    The transfer overlaps with this kernel and the one before it, and takes neither registers nor shared memory. Each
    thread of the grid requests one share of the bytes.

    Args:
        ahead: the weight matrix to prefetch.
        ahead_bytes: its size, int32; bytes beyond a multiple of 16 are left out.
        THREADS: threads per program; 0 prefetches nothing.
    """
    if THREADS:
        own = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
        threads = tl.num_programs(0) * tl.num_programs(1) * tl.num_programs(2) * THREADS
        share = tl.cdiv(tl.cdiv(ahead_bytes, threads), 16) * 16
        first = (own * THREADS + tl.arange(0, THREADS)) * share
        size = tl.minimum(ahead_bytes - first, share) & -16
        tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.gt.s32 p, $2, 0; @p cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0; }",
            "=r,l,r",
            [(ahead.to(tl.int64) + first) & -16, size],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def load_fresh(pointer, mask, ONE_TRIP: tl.constexpr):
    """Load what other kernels write, 0 where `mask` is not set. ONE_TRIP reads the L2 cache and bypasses L1."""
    CACHE: tl.constexpr = ".cg" if ONE_TRIP else ""
    return tl.load(pointer, mask, other=0, cache_modifier=CACHE)


@triton.jit
def load_word(slots, slot, WORD: tl.constexpr, ONE_TRIP: tl.constexpr):
    """Load WORD of one slot or of a block of slots; 0 where `slot` is -1."""
    return load_fresh(slots + slot * WORDS + WORD, slot >= 0, ONE_TRIP)


@triton.jit
def is_filtered(slots, slot, ONE_TRIP: tl.constexpr):
    """Whether a slot, or each of a block of slots, has a top-k or a top-p filter."""
    top_p = load_word(slots, slot, TOP_P_F, ONE_TRIP).to(tl.float32, bitcast=True)
    return (load_word(slots, slot, TOP_K, ONE_TRIP) > 0) | (top_p <= 1.0)


@triton.jit
def running_slot(rows, slots, row):
    """The slot of `row`, or -1 if there is none or it is not RUNNING."""
    slot = tl.load(rows + row)
    status = tl.load(slots + slot * WORDS + STATUS, mask=slot >= 0, other=0)
    return tl.where(status == RUNNING, slot, -1)


@triton.jit
def running(slots, listed, ONE_TRIP: tl.constexpr):
    """`listed` (entries of `rows`) where that slot is RUNNING, else -1."""
    return tl.where(load_word(slots, tl.maximum(listed, 0), STATUS, ONE_TRIP) == RUNNING, listed, -1)


@triton.jit
def layer_norm_row(x, weight, bias, mask, N_EMBD: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Layer norm of one row, float32; `x`, `weight`, `bias` (BLOCK,), zero where `mask` is not set."""
    mean = tl.sum(x) / N_EMBD
    centred = tl.where(mask, x - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred) / N_EMBD + 1e-5)
    y = centred * rstd * weight
    if HAS_BIAS:
        y += bias
    return y


@triton.jit
def gelu(x):
    """Exact GELU, through erf."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
