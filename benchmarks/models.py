"""The networks under test: random weights of each size, built the way barkfast builds them."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from barkfast.bark import Bark
from barkfast.config import Layout, Sampling
from barkfast.jobs import Job, Stop
from barkfast.runtime import select
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.sampling import Randomness
from barkfast.weights import Checkpoint, open_model
from benchmarks.plan import Plan
from benchmarks.sources import source, vocabulary

PARTS = {"semantic": "text", "coarse": "coarse"}


@lru_cache(maxsize=2)
def checkpoint(plan: Plan, size: str) -> Checkpoint:
    """The weights of a size."""
    return open_model(source(plan, size))


def storage(plan: Plan, dtype: str) -> torch.dtype:
    """What activations and cache are stored in."""
    return select.half_dtype(plan.device_name) if dtype == "int8" else select.DTYPES[dtype]


def build_decoder(
    plan: Plan, size: str, dtype: str, stage: str, *, n_slots: int = 1, options: Options | None = None
) -> CudaDecoder:
    """The GPU engine's decoder itself: nothing here falls back to another."""
    weights = checkpoint(plan, size).stage(PARTS[stage])
    return CudaDecoder(
        weights.config,
        weights.tensors,
        stage=stage,
        device=plan.device,
        dtype=storage(plan, dtype),
        int8=dtype == "int8",
        n_slots=n_slots,
        options=options,
    )


def require_engine(network: Any) -> Any:
    """The network, unless it fell back to the torch engine: that is not what is to be measured."""
    kind = type(network).__name__
    if not kind.startswith("Cuda"):
        raise RuntimeError(f"fell back to {kind}; the log says why")
    return network


def placement(plan: Plan, dtype: str, engine: str = "cuda") -> select.Placement:
    """Where the refiner and the codec are to run."""
    name = plan.device_name if engine == "cuda" else "cpu"
    return select.Placement(engine, name, name, select.DTYPES[dtype])


def step_job(stage: str, layout: Layout, prompt: int, steps: int, seed: int) -> Job:
    """A job of `steps` tokens after `prompt` random ones, drawn from what its stage draws from, as it draws."""
    ids = np.random.default_rng(seed).integers(0, layout.semantic.vocab_size, prompt).astype(np.int32)
    if stage == "semantic":
        slices = ((0, layout.semantic.vocab_size),)
        stop = Stop(layout.semantic.pad_token, layout.semantic.min_eos_p)
    else:
        first, size = layout.semantic.vocab_size, layout.codebook_size
        slices = tuple((first + k * size, first + (k + 1) * size) for k in range(layout.coarse.n_codebooks))
        stop = None
    return Job(ids, steps, slices, Sampling(0.7), stop, random=Randomness(seed))


def candidates(job: Job) -> int:
    """Head rows that one step of a job reads: those of one slice, and the stop token's."""
    return job.slices[0][1] - job.slices[0][0] + (job.stop is not None)


def open_bark(plan: Plan, size: str, dtype: str) -> Bark:
    """A loaded Bark, all of it on the GPU engine."""
    dtype = "float32" if plan.smoke else dtype
    bark = Bark(
        source(plan, size), device=plan.device_name, dtype=dtype, engine="cuda", tokenizer=vocabulary(plan.work)
    )
    bark.load()
    for part in ("text", "coarse", "fine", "codec"):
        require_engine(bark.parts.network(part))
    return bark


def full_voice(layout: Layout, seed: int = 1) -> dict[str, np.ndarray]:
    """A synthetic voice that fills every stage's history."""
    rng = np.random.default_rng(seed)
    n_semantic = 2 * layout.semantic.n_slots
    frames = round(n_semantic * layout.coarse_per_semantic / layout.coarse.n_codebooks)
    fine = rng.integers(0, layout.codebook_size, (layout.fine.n_codebooks, frames))
    return {
        "semantic_prompt": rng.integers(0, layout.semantic.vocab_size, n_semantic),
        "coarse_prompt": fine[: layout.coarse.n_codebooks],
        "fine_prompt": fine,
    }


def cuda_memory() -> dict[str, Any]:
    """Bytes, as torch counts them."""
    return {
        "allocated_bytes": torch.cuda.memory_allocated(),
        "reserved_bytes": torch.cuda.memory_reserved(),
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
