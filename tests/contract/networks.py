"""Small networks and jobs: the same tensors for an engine under test and its reference, the plain torch engine."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barkfast.config import FineConfig, GPTConfig, Sampling
from barkfast.jobs import Job, Stop
from barkfast.models.gpt import GPT
from barkfast.runtime.sampling import Randomness
from barkfast.runtime.torch_ import TorchDecoder
from barkfast.weights.random import make_gpt

FINE = FineConfig(2, 2, 64, 40, 40, 32, bias=True, n_codes_total=4, n_codes_given=1)
# Token ids above the slices that jobs draw from: STOP ends a job, POISON in a prompt makes its logits NaN.
STOP = 100
POISON = 119


def with_biases(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The tensors, with biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            tensor.normal_(0, 0.1, generator=generator)
    return tensors


@cache
def gpt_tensors(config: GPTConfig) -> dict[str, Tensor]:
    """A random network whose logits are spread out, so that rounding changes no drawn token."""
    tensors = with_biases(make_gpt(config, torch.Generator().manual_seed(1)), seed=2)
    tensors["lm_head.weight"] *= 2
    return tensors


@cache
def fine_tensors(config: FineConfig = FINE) -> dict[str, Tensor]:
    """A random fine network. Its norms always have biases; without `config.bias`, the weights of ln_1 are not one."""
    tensors = with_biases(make_gpt(config, torch.Generator().manual_seed(3)), seed=4)
    for name, tensor in tensors.items():
        if not config.bias and name.endswith("ln_1.weight"):
            tensor.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(5))
    return tensors


def torch_decoder(config: GPTConfig, tensors: dict[str, Tensor] | None = None) -> TorchDecoder:
    """The reference: the torch engine's decoder, in float32 on the CPU."""
    model = GPT(config).requires_grad_(False).eval()
    model.load_state_dict(tensors or gpt_tensors(config))
    return TorchDecoder(model, stage="coarse")


def make_job(
    seed: int | None = 0,
    *,
    length: int = 20,
    steps: int = 12,
    sampling: Sampling = Sampling(0.0),
    slices: tuple[tuple[int, int], ...] = ((0, 50), (50, 100)),
    **fields: Any,
) -> Job:
    """A job with a random prompt that depends on `seed`."""
    prompt = np.random.default_rng(1000 + (seed or 0)).integers(0, 118, length).astype(np.int32)
    return Job(prompt, steps, slices, sampling, random=Randomness(seed), **fields)


def fresh(job: Job) -> Job:
    """The same request with its random numbers restarted."""
    return dataclasses.replace(job, random=Randomness(job.random.seed))


def poisoned(job: Job) -> Job:
    """The same request with POISON in its prompt, which makes its logits NaN."""
    prompt = job.prompt.copy()
    prompt[4] = POISON
    return dataclasses.replace(job, prompt=prompt)


def mixed_jobs() -> list[Job]:
    """Requests as in practice: various lengths, sampling, stop rules and slices, and more of them than slots."""
    stop = Stop(STOP, 0.2)
    return [
        make_job(0, length=1, steps=5, sampling=Sampling(0.7)),
        make_job(1, length=63, steps=4, sampling=Sampling(1.0), stop=stop),
        make_job(2, length=64, steps=9),
        make_job(3, length=65, steps=1, sampling=Sampling(1.3)),
        make_job(4, length=40, steps=6, sampling=Sampling(0.9, top_k=5), slices=((50, 100), (0, 50))),
        make_job(5, length=33, steps=5, sampling=Sampling(0.9, top_p=0.7), stop=Stop(STOP)),
        make_job(6, length=30, steps=7, sampling=Sampling(0.8, top_k=20, top_p=0.9), n_merged=10, stop=stop),
    ]
