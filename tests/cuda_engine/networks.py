"""Small networks on the GPU engine, and the torch reference on the same device."""

from functools import cache

import torch
from torch import Tensor

from barkfast.config import GPTConfig
from barkfast.jobs import Job
from barkfast.models.fine import FineGPT
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.refiner import CudaRefiner
from barkfast.runtime.torch_ import TorchDecoder, TorchRefiner
from barkfast_kernels.launch import INTERPRETED
from contract import networks
from contract.networks import FINE, POISON, fine_tensors

DEVICE = torch.device("cpu" if INTERPRETED else "cuda:0")
# A head size of 48 is no power of two. Jobs draw tokens below 100; the vocabulary goes on to 120.
CONFIG = GPTConfig(2, 2, 96, input_vocab_size=120, output_vocab_size=120, block_size=128, bias=True)


@cache
def gpt_tensors() -> dict[str, Tensor]:
    """The network's tensors; token POISON's embedding is NaN."""
    tensors = dict(networks.gpt_tensors(CONFIG))
    table = tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].clone()
    table[POISON] = float("nan")
    return tensors


def torch_decoder(tensors: dict[str, Tensor] | None = None) -> TorchDecoder:
    decoder = networks.torch_decoder(CONFIG, tensors)
    decoder.to(str(DEVICE))
    return decoder


def torch_refiner() -> TorchRefiner:
    model = FineGPT(FINE).requires_grad_(False).eval()
    model.load_state_dict(fine_tensors())
    model.tie()
    return TorchRefiner(model.to(DEVICE))


def cuda_decoder(dtype: torch.dtype = torch.float32, **options: object) -> CudaDecoder:
    settings = {"stage": "coarse", "device": DEVICE, "dtype": dtype} | options
    return CudaDecoder(CONFIG, gpt_tensors(), **settings)


def mixed_jobs() -> list[Job]:
    """All of the contract's on a GPU; in the interpreter four: one step, stop rules, slices, a merged prompt."""
    jobs = networks.mixed_jobs()
    return jobs if DEVICE.type == "cuda" else [jobs[i] for i in (1, 3, 4, 6)]


def cuda_refiner(dtype: torch.dtype = torch.float32, **options: object) -> CudaRefiner:
    return CudaRefiner(FINE, fine_tensors(), **({"device": DEVICE, "dtype": dtype} | options))
