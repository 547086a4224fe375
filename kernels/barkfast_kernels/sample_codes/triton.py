import triton
import triton.language as tl
from torch import Tensor

from barkfast_kernels.launch import INTERPRETED, launch, next_power_of_2
from barkfast_kernels.random.triton import gumbel_noise
from barkfast_kernels.sample.triton import is_finite, temper
from barkfast_kernels.slots import FAILED, FIRST_DRAW, POSITION, SEED_HIGH, SEED_LOW, STATUS, TEMPERATURE_F


@triton.jit
def _sample_codes_kernel(
    logits,  # (n_frames, N_LOGITS)
    codes,  # (n_frames, N_CODEBOOKS) int32
    draw,  # (WORDS,) int32
    n_frames,
    codebook,
    N_LOGITS: tl.constexpr,
    N_CODEBOOKS: tl.constexpr,
    CODEBOOK_SIZE: tl.constexpr,
    STAGE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    frame = (tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T))[:, None]
    code = tl.arange(0, BLOCK_V)[None, :]
    wanted = (frame >= tl.load(draw + POSITION)) & (frame < n_frames)
    mask = wanted & (code < CODEBOOK_SIZE)
    value = tl.load((logits + frame.to(tl.int64) * N_LOGITS) + code, mask=mask, other=0.0).to(tl.float32)
    finite = is_finite(value)
    broken = tl.max((finite == 0).to(tl.int32), axis=1)[:, None] > 0
    score = tl.where(mask & finite, value, -float("inf"))
    temperature = tl.load(draw + TEMPERATURE_F).to(tl.float32, bitcast=True)
    if temperature != 0.0:
        number = tl.load(draw + FIRST_DRAW) + codebook * n_frames + frame
        noise = gumbel_noise(tl.load(draw + SEED_LOW), tl.load(draw + SEED_HIGH), STAGE, number, code)
        score = temper(score, temperature) + noise
    best = tl.argmax(score, axis=1)[:, None]
    tl.store(codes + frame * N_CODEBOOKS + codebook, best, mask=wanted & (broken == 0))
    tl.store(draw + STATUS + frame * 0, tl.full((BLOCK_T, 1), FAILED, tl.int32), mask=broken)


def sample_codes(logits: Tensor, codes: Tensor, draw: Tensor, *, codebook: int, codebook_size: int, stage: int) -> None:
    """Draw one codebook's code for every frame from frame POSITION on.

    A frame with a logit that is NaN or infinite keeps its code and sets STATUS of `draw` to FAILED.

    Args:
        logits: (n_frames, at least codebook_size); columns beyond codebook_size are ignored.
        codes: (n_frames, n_codebooks) int32; column `codebook` is written.
        draw: (WORDS,) int32, laid out like a slot: POSITION is the first frame; TEMPERATURE_F, SEED_LOW, SEED_HIGH.
            Frame t is drawn with random number FIRST_DRAW + codebook * n_frames + t.
        stage: number of the network, so that each network has its own random numbers.
    """
    n_frames, block_v = logits.shape[0], next_power_of_2(codebook_size)
    block_t = min(triton.next_power_of_2(n_frames), max(1, (1 << 20) // block_v)) if INTERPRETED else 1
    launch(
        _sample_codes_kernel,
        (triton.cdiv(n_frames, block_t),),
        {"logits": logits, "codes": codes, "draw": draw, "n_frames": n_frames, "codebook": codebook},
        {
            "N_LOGITS": logits.shape[1],
            "N_CODEBOOKS": codes.shape[1],
            "CODEBOOK_SIZE": codebook_size,
            "STAGE": stage,
            "BLOCK_T": block_t,
            "BLOCK_V": block_v,
        },
        num_warps=4,
    )
