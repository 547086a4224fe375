"""Small networks for the CPU engine and its judge, the plain torch engine, from the same tensors."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.config import FineConfig, GPTConfig, Sampling
from barkfast.jobs import Job, Stop
from barkfast.models.gpt import GPT
from barkfast.native import load_native, native_status
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.cpu.packing import Packed, pack_network, unpack_matrix
from barkfast.runtime.sampling import Randomness
from barkfast.runtime.torch_ import TorchDecoder
from barkfast.weights.random import make_gpt

needs_native = pytest.mark.skipif(load_native() is None, reason=f"no native module: {native_status()[1]}")

# A stop token, an unused tail and a NaN token stand behind the slices; of the sizes only a head's is a multiple of 16.
CONFIG = GPTConfig(
    n_layer=2, n_head=3, n_embd=48, input_vocab_size=123, output_vocab_size=120, block_size=130, bias=True
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
DTYPES = ("float32", "bfloat16", "int8", "int4")


def isas() -> list[str]:
    """The instruction-set levels that can run here."""
    native = load_native()
    return native.supported_isas() if native is not None else []


@cache
def make_pool(threads: int = 2) -> Any:
    """Native threads, shared by the tests."""
    native = load_native()
    assert native is not None
    return native.Pool(threads)


def with_biases(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """The tensors, with biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            tensor.normal_(0, 0.1, generator=generator)
    return tensors


@cache
def gpt_tensors(config: GPTConfig = CONFIG) -> dict[str, torch.Tensor]:
    """A random network whose logits are spread out, so that rounding decides no draw."""
    tensors = with_biases(make_gpt(config, torch.Generator().manual_seed(1)), seed=2)
    tensors["lm_head.weight"] *= 2
    return tensors


@cache
def pack(dtype: str = "float32", config: GPTConfig = CONFIG) -> Packed:
    """The same, packed; token POISON's embedding is NaN."""
    packed = pack_network(config, gpt_tensors(config), dtype, what="the network under test")
    table = next(piece for piece in packed.pieces if piece.name == "transformer.wte.weight")
    row = table.size // table.rows
    # Both bytes of a bfloat16 and all of a float32: NaN.
    packed.block[table.offset + POISON * row : table.offset + (POISON + 1) * row] = 0xFF
    return packed


def packed_tensors(dtype: str, config: GPTConfig = CONFIG) -> dict[str, torch.Tensor]:
    """What the packed network's numbers stand for, in float32."""
    packed = pack_network(config, gpt_tensors(config), dtype, what="the network under test")
    tensors = dict(gpt_tensors(config))
    for name, kind, format, *_ in packed.entries:
        if kind == "matrix":
            tensors[name] = unpack_matrix(packed, name)
        elif kind == "table" and format == 1:
            tensors[name] = tensors[name].bfloat16().float()
    return tensors


def torch_decoder(config: GPTConfig = CONFIG, tensors: dict[str, torch.Tensor] | None = None) -> TorchDecoder:
    """The judge, in float32."""
    model = GPT(config).requires_grad_(False).eval()
    model.load_state_dict(tensors or gpt_tensors(config))
    return TorchDecoder(model)


def cpu_decoder(
    dtype: str = "float32",
    *,
    n_slots: int = 1,
    config: GPTConfig = CONFIG,
    threads: int = 2,
    isa: str = "",
    stage: str = "coarse",
) -> CpuDecoder:
    """The engine under test."""
    packed = pack(dtype, config)
    return CpuDecoder(config, packed, stage=stage, pool=make_pool(threads), n_slots=n_slots, dtype=dtype, isa=isa)


def make_job(
    seed: int | None = 0,
    *,
    length: int = 20,
    steps: int = 12,
    sampling: Sampling = Sampling(0.0),
    slices: tuple[tuple[int, int], ...] = ((0, 50), (50, 100)),
    **fields: Any,
) -> Job:
    """A job with a prompt of its own."""
    prompt = np.random.default_rng(1000 + (seed or 0)).integers(0, 118, length).astype(np.int32)
    return Job(prompt, steps, slices, sampling, random=Randomness(seed), **fields)


def fresh(job: Job) -> Job:
    """The same request again, with random numbers from the start."""
    return dataclasses.replace(job, random=Randomness(job.random.seed))


def mixed_jobs() -> list[Job]:
    """Requests as they come: every length, sampling, vocabulary, ending and phase, more than there are slots."""
    stop = Stop(STOP, 0.2)
    return [
        make_job(0, length=1, steps=5, sampling=Sampling(0.7)),
        make_job(1, length=63, steps=4, sampling=Sampling(1.0), stop=stop),
        make_job(2, length=64, steps=9, slices=((3, 90),)),
        make_job(3, length=65, steps=1, sampling=Sampling(1.3)),
        make_job(4, length=40, steps=6, sampling=Sampling(0.9, top_k=5), slices=((50, 100), (0, 50))),
        make_job(5, length=33, steps=5, sampling=Sampling(0.9, top_p=0.7), stop=Stop(STOP)),
        make_job(6, length=30, steps=7, sampling=Sampling(0.8, top_k=20, top_p=0.9), merged=10, stop=stop),
        make_job(7, length=17, steps=8, sampling=Sampling(0.8), slices=((70, 95),), stop=Stop(1)),
    ]
