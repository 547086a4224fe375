"""How far a network's logits are off, by what its numbers are stored as."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from barkfast.bench.check import LOGITS_LIMITS
from barkfast.bench.compare import rms_ratio
from barkfast.bench.teacher_forced import GREEDY
from barkfast.config import Layout
from barkfast.runtime import select
from barkfast.weights.checkpoint import StageWeights
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.steps import DTYPES
from benchmarks.plan import Plan

# The targets are stricter: beyond these limits something must be wrong, rather than rounded.
LIMITS = LOGITS_LIMITS["cpu"]


def check_logits(plan: Plan, dtype: str, sizes: tuple[str, ...]) -> dict[str, Any]:
    """The worst of all networks."""
    ratios = {name: found[dtype] for name, found in logits_errors(plan, sizes).items()}
    for ratio in ratios.values():
        if isinstance(ratio, Exception):
            raise ratio
    worst = max(ratios.values())
    return {"ok": worst < LIMITS[dtype], "dtype": dtype, "rms_ratio": worst, "rms_ratios": ratios}


@lru_cache(maxsize=1)
def logits_errors(plan: Plan, sizes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Root mean square of the error over that of torch's float32 logits, or what went wrong, by network and dtype."""
    found: dict[str, dict[str, Any]] = {}
    for size in sizes:
        for stage in ("semantic", "coarse", "fine"):
            logits_of = fine_logits if stage == "fine" else decoder_logits
            # Made from a seed: once is enough for all dtypes.
            weights = inputs.checkpoint(plan, size).stage(inputs.COMPONENTS.get(stage, stage))
            expected = logits_of(weights, stage, "float32", "torch")
            ratios = found[f"{size} {stage}"] = {}
            for dtype in DTYPES:
                try:
                    ratios[dtype] = rms_ratio(expected, logits_of(weights, stage, dtype, "cpu"))
                except Exception as error:
                    ratios[dtype] = error
    return found


def decoder_logits(weights: StageWeights, stage: str, dtype: str, engine: str) -> np.ndarray:
    """What the second token is drawn from, the first being given: a prompt's work and a step's."""
    job = inputs.step_job(stage, Layout(), 300, 2, 0)
    first, end = job.slices[0]
    job = replace(job, slices=((first + 5, first + 6), (first, end)), sampling=GREEDY, stop=None)
    decoder = select.build_decoder(stage, weights.config, weights.tensors, networks.place(dtype, engine))
    slot = decoder.admit(job)
    decoder.step()
    decoder.step()
    return decoder.logits(slot)


def fine_logits(weights: StageWeights, stage: str, dtype: str, engine: str) -> np.ndarray:
    """Those of the sixth codebook in a short window."""
    codes = np.random.default_rng(0).integers(0, 1024, (256, 8)).astype(np.int32)
    codes[:, 5:] = 1024
    refiner = select.build_refiner(weights.config, weights.tensors, networks.place(dtype, engine))
    return refiner.logits(codes, 5)
