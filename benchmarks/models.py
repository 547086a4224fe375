"""The networks under test on a GPU: random weights of each size, built the way barkfast builds them."""

from functools import lru_cache
from typing import Any

import torch

from barkfast.bark import Bark
from barkfast.config import GPTConfig
from barkfast.runtime import select
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.weights.random import VOCABULARIES
from barkfast.weights.shapes import gpt_shapes
from benchmarks import inputs
from benchmarks.plan import Plan
from benchmarks.record import NotRun
from benchmarks.sources import source, vocabulary


def storage(plan: Plan, dtype: str) -> torch.dtype:
    """What activations and cache are stored in."""
    return select.torch_dtype(select.half_dtype(plan.device_name) if dtype == "int8" else dtype)


def build_decoder(
    plan: Plan, size: str, dtype: str, stage: str, *, n_slots: int = 1, options: Options | None = None
) -> CudaDecoder:
    """The GPU engine's decoder itself: nothing here falls back to another."""
    weights = inputs.checkpoint(plan, size).stage(inputs.COMPONENTS[stage])
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


@lru_cache(maxsize=2)
def narrow_weights(stage: str) -> tuple[GPTConfig, dict[str, torch.Tensor]]:
    """The smallest network, with Bark's heads, vocabularies and context, that the CUDA kernels of a step serve."""
    config = GPTConfig(2, 2, 128, *VOCABULARIES[inputs.COMPONENTS[stage]], bias=False)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in gpt_shapes(config).items()}
    return config, tensors


def build_narrow(plan: Plan, dtype: str, stage: str, *, n_slots: int = 1, options: Options) -> CudaDecoder:
    """The GPU engine's decoder of that network.

    Raises: NotRun where the device has no such kernels.
    """
    if options.variant.kernels == "cuda" and not has_hopper(plan):
        raise NotRun("the CUDA kernels of a step need a device of compute capability 9.0")
    config, tensors = narrow_weights(stage)
    return CudaDecoder(
        config,
        tensors,
        stage=stage,
        device=plan.device,
        dtype=storage(plan, dtype),
        int8=dtype == "int8",
        n_slots=n_slots,
        options=options,
    )


def has_hopper(plan: Plan) -> bool:
    """Whether the device can run the CUDA kernels of a step."""
    return plan.device.type == "cuda" and torch.cuda.get_device_capability(plan.device) >= (9, 0)


def placement(plan: Plan, dtype: str, engine: str = "cuda") -> select.Placement:
    """Where the refiner and the codec are to run."""
    name = plan.device_name if engine == "cuda" else "cpu"
    return select.Placement(engine, name, name, dtype)


def open_bark(plan: Plan, size: str, dtype: str) -> Bark:
    """A loaded Bark, all of it on the GPU engine."""
    dtype = "float32" if plan.smoke else dtype
    bark = Bark(
        source(plan, size), device=plan.device_name, dtype=dtype, engine="cuda", tokenizer=vocabulary(plan.work)
    )
    bark.load()
    return bark


def cuda_memory() -> dict[str, Any]:
    """Bytes, as torch counts them."""
    return {
        "allocated_bytes": torch.cuda.memory_allocated(),
        "reserved_bytes": torch.cuda.memory_reserved(),
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
