import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.launch import INTERPRETED, launch, next_power_of_2


@triton.jit
def _embed_codes_kernel(
    codes,  # (n_frames, N_CODEBOOKS) int32
    tables,  # (N_CODEBOOKS, VOCABULARY, N_EMBD)
    wpe,  # (block_size, N_EMBD)
    x,  # (n_frames, N_EMBD) float32, out
    n_frames,
    codebook,
    N_CODEBOOKS: tl.constexpr,
    VOCABULARY: tl.constexpr,
    N_EMBD: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    frame = (tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T))[:, None]
    k = tl.arange(0, BLOCK_K)[None, :]
    mask = (frame < n_frames) & (k < N_EMBD)
    total = tl.zeros((BLOCK_T, BLOCK_K), tl.float32)
    for i in range(codebook + 1):
        code = tl.load(codes + frame * N_CODEBOOKS + i, mask=frame < n_frames, other=0)
        entry = (i * VOCABULARY + code).to(tl.int64) * N_EMBD
        total += tl.load(tables + entry + k, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(wpe + frame * N_EMBD + k, mask=mask, other=0.0).to(tl.float32)
    tl.store(x + frame * N_EMBD + k, total, mask=mask)


def embed_codes(codes: Tensor, tables: Tensor, wpe: Tensor, x: Tensor, *, codebook: int) -> None:
    """Input of the fine network: sum of the embeddings of codebooks 0..codebook and of the position.

    Args:
        codes: (n_frames, n_codebooks) int32.
        tables: (n_codebooks, vocabulary, n_embd); may have fewer codebooks than `codes`, but more than `codebook`.
        wpe: (at least n_frames, n_embd).
        x: (n_frames, n_embd) float32, out.
    """
    n_frames, n_embd = x.shape
    block_k = next_power_of_2(n_embd)
    block_t = min(triton.next_power_of_2(n_frames), max(1, (1 << 20) // block_k)) if INTERPRETED else 1
    launch(
        _embed_codes_kernel,
        (triton.cdiv(n_frames, block_t),),
        {"codes": codes, "tables": tables, "wpe": wpe, "x": x, "n_frames": n_frames, "codebook": codebook},
        {
            "N_CODEBOOKS": codes.shape[1],
            "VOCABULARY": tables.shape[1],
            "N_EMBD": n_embd,
            "BLOCK_T": block_t,
            "BLOCK_K": block_k,
        },
        num_warps=4,
    )
