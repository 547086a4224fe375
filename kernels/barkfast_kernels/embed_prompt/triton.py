import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.launch import INTERPRETED, launch, next_power_of_2


@triton.jit(do_not_specialize=["n_positions"])
def _embed_prompt_kernel(
    tokens,  # (n_tokens,) int32
    wte,  # (vocabulary, N_EMBD)
    wpe,  # (block_size, N_EMBD)
    x,  # (n_positions, N_EMBD) float32, out
    prompt,  # (4,) int32
    n_positions,
    N_EMBD: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    position = (tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T))[:, None]
    k = tl.arange(0, BLOCK_K)[None, :]
    inside = k < N_EMBD
    present = position < tl.load(prompt + 1)
    n_merged = tl.load(prompt + 2)
    both = present & (position < n_merged)
    text = tl.load(tokens + position, mask=both, other=0).to(tl.int64)
    token = tl.load(tokens + n_merged + position, mask=present, other=0).to(tl.int64)
    total = tl.load(wte + text * N_EMBD + k, mask=both & inside, other=0.0).to(tl.float32)
    total += tl.load(wte + token * N_EMBD + k, mask=present & inside, other=0.0).to(tl.float32)
    total += tl.load(wpe + position * N_EMBD + k, mask=present & inside, other=0.0).to(tl.float32)
    tl.store(x + position * N_EMBD + k, total, mask=(position < n_positions) & inside)


def embed_prompt(tokens: Tensor, wte: Tensor, wpe: Tensor, x: Tensor, prompt: Tensor) -> None:
    """Embed a prompt whose first `n_merged` positions are each the sum of two tokens (text and history).

    Position p is wte[tokens[p + n_merged]] + wpe[p], with wte[tokens[p]] added where p < n_merged.

    Args:
        tokens: (n_tokens,) int32, of which n_merged + length are read.
        wte, wpe: (vocabulary, n_embd), (block_size, n_embd).
        x: (n_positions, n_embd) float32, out; zero from `length` on.
        prompt: (4,) int32: slot, length in positions, n_merged, 0.
    """
    n_positions, n_embd = x.shape
    block_k = next_power_of_2(n_embd)
    block_t = min(triton.next_power_of_2(n_positions), max(1, (1 << 20) // block_k)) if INTERPRETED else 1
    launch(
        _embed_prompt_kernel,
        (triton.cdiv(n_positions, block_t),),
        {"tokens": tokens, "wte": wte, "wpe": wpe, "x": x, "prompt": prompt, "n_positions": n_positions},
        {"N_EMBD": n_embd, "BLOCK_T": block_t, "BLOCK_K": block_k},
        num_warps=4,
    )
