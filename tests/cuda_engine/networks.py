"""Small networks for the GPU engine and its judge, the plain torch engine, from the same tensors."""

from functools import cache

import numpy as np
import torch

from barkfast.config import FineConfig, GPTConfig, Sampling
from barkfast.jobs import Job, Stop
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.refiner import CudaRefiner
from barkfast.runtime.sampling import Randomness
from barkfast.runtime.torch_ import TorchDecoder, TorchRefiner
from barkfast.weights.random import make_gpt
from barkfast_kernels.launch import INTERPRETED

DEVICE = torch.device("cpu" if INTERPRETED else "cuda:0")
# 48 is no power of two; a stop token, an unused tail and a NaN token stand behind the slices.
CONFIG = GPTConfig(
    n_layer=2, n_head=2, n_embd=96, input_vocab_size=120, output_vocab_size=120, block_size=128, bias=True
)
FINE = FineConfig(
    n_layer=2,
    n_head=2,
    n_embd=64,
    input_vocab_size=40,
    output_vocab_size=40,
    block_size=32,
    bias=True,
    n_codes_total=4,
    n_codes_given=1,
)
STOP = 100
# A prompt that holds this token gets NaN for logits.
POISON = 119


def with_biases(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """The tensors, with biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            tensor.normal_(0, 0.1, generator=generator)
    return tensors


@cache
def gpt_tensors() -> dict[str, torch.Tensor]:
    tensors = with_biases(make_gpt(CONFIG, torch.Generator().manual_seed(1)), seed=2)
    # Spread out, so that rounding decides no draw.
    tensors["lm_head.weight"] *= 2
    tensors["transformer.wte.weight"][POISON] = float("nan")
    return tensors


@cache
def fine_tensors() -> dict[str, torch.Tensor]:
    return with_biases(make_gpt(FINE, torch.Generator().manual_seed(3)), seed=4)


def torch_decoder(dtype: torch.dtype = torch.float32, tensors: dict[str, torch.Tensor] | None = None) -> TorchDecoder:
    model = GPT(CONFIG).requires_grad_(False).eval()
    model.load_state_dict(tensors or gpt_tensors())
    return TorchDecoder(model.to(DEVICE, dtype))


def torch_refiner() -> TorchRefiner:
    model = FineGPT(FINE).requires_grad_(False).eval()
    model.load_state_dict(fine_tensors())
    model.tie()
    return TorchRefiner(model.to(DEVICE))


def cuda_decoder(dtype: torch.dtype = torch.float32, **options: object) -> CudaDecoder:
    settings = {"stage": "coarse", "device": DEVICE, "dtype": dtype} | options
    return CudaDecoder(CONFIG, gpt_tensors(), **settings)


def cuda_refiner(dtype: torch.dtype = torch.float32, **options: object) -> CudaRefiner:
    return CudaRefiner(FINE, fine_tensors(), **({"device": DEVICE, "dtype": dtype} | options))


def make_job(
    seed: int | None = 0,
    *,
    length: int = 20,
    steps: int = 12,
    sampling: Sampling = Sampling(0.0),
    slices: tuple[tuple[int, int], ...] = ((0, 50), (50, 100)),
    **fields: object,
) -> Job:
    """A job with a prompt of its own."""
    prompt = np.random.default_rng(1000 + (seed or 0)).integers(0, 118, length).astype(np.int32)
    return Job(prompt, steps, slices, sampling, random=Randomness(seed), **fields)


def mixed_jobs() -> list[Job]:
    """Requests as they come: every length, sampling, ending and phase, more than there are slots."""
    stop = Stop(STOP, 0.2)
    return [
        make_job(0, length=1, steps=5, sampling=Sampling(0.7)),
        make_job(1, length=63, steps=4, sampling=Sampling(1.0), stop=stop),
        make_job(2, length=64, steps=9),
        make_job(3, length=65, steps=1, sampling=Sampling(1.3)),
        make_job(4, length=40, steps=6, sampling=Sampling(0.9, top_k=5), slices=((50, 100), (0, 50))),
        make_job(5, length=33, steps=5, sampling=Sampling(0.9, top_p=0.7), stop=Stop(STOP)),
        make_job(6, length=30, steps=7, sampling=Sampling(0.8, top_k=20, top_p=0.9), merged=10, stop=stop),
    ]
