"""How far a network's logits are off, by what its numbers are stored as."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from barkfast.config import Layout, Sampling
from barkfast.jobs import Job
from barkfast.runtime import select
from barkfast.weights.checkpoint import StageWeights
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.steps import DTYPES
from benchmarks.plan import Plan

GREEDY = Sampling(0)
# Root mean square of the logits' error over that of float32's logits. The targets are stricter: beyond these limits
# something must be wrong, rather than rounded.
LOGITS_LIMIT = {"float32": 1e-4, "bfloat16": 0.03, "int8": 0.08, "int4": 0.4}


def relative(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Root mean square of the error over that of what is expected."""
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def check_logits(plan: Plan, dtype: str, sizes: tuple[str, ...]) -> dict[str, Any]:
    """The worst of all networks."""
    ratios = {name: found[dtype] for name, found in logits_errors(plan, sizes).items()}
    for ratio in ratios.values():
        if isinstance(ratio, Exception):
            raise ratio
    worst = max(ratios.values())
    return {"ok": worst < LOGITS_LIMIT[dtype], "dtype": dtype, "rms_ratio": worst, "rms_ratios": ratios}


@lru_cache(maxsize=1)
def logits_errors(plan: Plan, sizes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Root mean square of the error over that of torch's float32 logits, or what went wrong, by network and dtype."""
    found: dict[str, dict[str, Any]] = {}
    for size in sizes:
        for stage in ("semantic", "coarse", "fine"):
            logits_of = fine_logits if stage == "fine" else decoder_logits
            # Made from a seed: once is enough for all dtypes.
            weights = inputs.checkpoint(plan, size).stage(inputs.PARTS.get(stage, stage))
            expected = logits_of(weights, stage, "float32", "torch")
            ratios = found[f"{size} {stage}"] = {}
            for dtype in DTYPES:
                try:
                    ratios[dtype] = relative(expected, logits_of(weights, stage, dtype, "cpu"))
                except Exception as error:
                    ratios[dtype] = error
    return found


def decoder_logits(weights: StageWeights, stage: str, dtype: str, engine: str) -> torch.Tensor:
    """What the second token is drawn from, the first being given: a prompt's work and a step's."""
    layout = Layout()
    job = inputs.step_job(stage, layout, 300, 2, 0)
    first, end = job.slices[0]
    job = Job(job.prompt, 2, ((first + 5, first + 6), (first, end)), GREEDY)
    placement = networks.place(dtype, engine)
    decoder = select.build_decoder(stage, weights.config, weights.tensors, placement)
    networks.require_engine(decoder, engine)
    slot = decoder.admit(job)
    decoder.step()
    if engine == "torch":
        hidden = decoder._sequences[slot].hidden
        with torch.inference_mode():
            return decoder.model.logits(hidden, first, end)[0].clone()
    decoder.step()
    return torch.from_numpy(decoder._native.logits(slot))


def fine_logits(weights: StageWeights, stage: str, dtype: str, engine: str) -> torch.Tensor:
    """Those of the sixth codebook in a short window."""
    codes = np.random.default_rng(0).integers(0, 1024, (256, 8)).astype(np.int32)
    codes[:, 5:] = 1024
    refiner = select.build_refiner(weights.config, weights.tensors, networks.place(dtype, engine))
    networks.require_engine(refiner, engine)
    if engine == "torch":
        with torch.inference_mode():
            return refiner.model(torch.from_numpy(codes.astype(np.int64))[None], 5)[0].clone()
    return torch.from_numpy(refiner.logits(codes, 5))
