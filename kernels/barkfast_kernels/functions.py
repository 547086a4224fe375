"""Device functions that several kernels share."""

import triton
import triton.language as tl

from barkfast_kernels.slots import RUNNING, STATUS, WORDS


@triton.jit
def pdl_launch(PDL: tl.constexpr):
    """Let the next kernel start: it may load what no kernel writes (weights), and waits before anything else."""
    # Triton's own gdc_launch_dependents and gdc_wait are this, but do not compile in Triton 3.4.
    if PDL:
        tl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def pdl_wait(PDL: tl.constexpr):
    """Wait until the kernels before this one have ended and their writes are visible.

    Every program must come through here, also one that has nothing to do: a grid whose programs leave early would
    let its successor start before its predecessor has ended.
    """
    if PDL:
        tl.inline_asm_elementwise("griddepcontrol.wait; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def running_slot(rows, slots, row):
    """The slot of `row`, or -1 where there is nothing to do for it."""
    slot = tl.load(rows + row)
    status = tl.load(slots + slot * WORDS + STATUS, mask=slot >= 0, other=0)
    return tl.where(status == RUNNING, slot, -1)


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
