"""What a suite measures: the model, the device, and the networks on each engine, checked before they are timed."""

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from barkfast.bench import check as gate
from barkfast.bench.teacher_forced import build_network
from barkfast.bench.workload import Workload
from barkfast.config import Sampling
from barkfast.jobs import FineJob
from barkfast.runtime import select
from barkfast.runtime.engines import describe_engines
from barkfast.runtime.sampling import Randomness
from barkfast.weights import Checkpoint, open_model

# Dtypes that the torch engine is worth measuring in on a CPU.
TORCH_ON_CPU = ("float32", "bfloat16")


@dataclass(frozen=True)
class Setting:
    """One run of the suites.

    Args:
        size: of the random weights, one of barkfast.weights.random.SIZES.
        device: resolved.
        smoke: next to no work, to see that everything runs.
    """

    size: str
    device: str
    smoke: bool

    @property
    def model(self) -> str:
        return f"random:{self.size}"

    @property
    def torch_device(self) -> torch.device:
        """With its number, as the cuda engine has it."""
        device = torch.device(self.device)
        return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def list_engines(setting: Setting) -> list[tuple[str, str]]:
    """The device's own engine, then torch's, each with its dtypes; in a smoke test few of them."""
    kind = setting.device.partition(":")[0]
    present = [e.name for e in describe_engines(setting.device) if e.available and e.name in ("torch", kind)]
    pairs = [(engine, dtype) for engine in reversed(present) for dtype in select.ENGINE_DTYPES[engine]]
    if kind == "cpu":
        pairs = [(engine, dtype) for engine, dtype in pairs if engine != "torch" or dtype in TORCH_ON_CPU]
    if setting.smoke:
        pairs = [pair for pair in pairs if pair[1] in ("float32", "int8")]
    return pairs


@cache
def find_wrong(setting: Setting, engine: str, dtype: str) -> tuple[str, ...]:
    """The names of the correctness gate's checks that are red for an engine and a dtype."""
    if engine == "cuda" and setting.device == "cpu":
        # Triton's interpreter is far too slow for it, and its times are worth nothing.
        return ()
    case = Workload(model=setting.model, device=setting.device, engine=engine, dtype=dtype)
    return tuple(check.name for check in gate.check(case, quick=True) if not check.ok)


@lru_cache(maxsize=1)
def open_weights(setting: Setting) -> Checkpoint:
    """The model."""
    return open_model(setting.model)


@lru_cache(maxsize=1)
def build(setting: Setting, engine: str, dtype: str, stage: str, n_slots: int = 1) -> Any:
    """The decoder, refiner or codec of a stage; the last one is kept."""
    place = select.Placement(engine, setting.device, setting.device, dtype, n_slots)
    return build_network(open_weights(setting), stage, place)


def fine_job(setting: Setting) -> FineJob:
    """A whole window, of which the coarse codebooks are given; a short one in a smoke test."""
    layout = open_weights(setting).layout
    frames, given = 16 if setting.smoke else layout.fine.window, layout.coarse.n_codebooks
    window = np.full((frames, layout.fine.n_codebooks), layout.codebook_size, np.int32)
    window[:, :given] = np.random.default_rng(0).integers(0, layout.codebook_size, (frames, given))
    return FineJob(window, 0, given, layout.codebook_size, Sampling(0.5), Randomness(0))


def count_threads() -> list[int]:
    """Numbers of threads to scale over: 1, 2, 4, ... and all that this process may use."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, most, *(n for n in (2, 4, 8, 16, 32, 64) if n < most)})
