"""The networks under test: random weights of each size, on one engine; nothing here falls back to another."""

from functools import lru_cache
from typing import Any

import torch

from barkfast.bark import Bark
from barkfast.bench.workload import vocabulary
from barkfast.config import GPTConfig
from barkfast.errors import EngineError
from barkfast.runtime import select
from barkfast.runtime.decoder import Codec, Decoder, Refiner
from barkfast.weights import Checkpoint, open_model
from barkfast.weights.convert import MARKER
from barkfast.weights.random import VOCABULARIES
from barkfast.weights.shapes import gpt_shapes
from benchmarks.plan import Plan
from benchmarks.record import NotRun

COMPONENTS = {"semantic": "text", "coarse": "coarse", "fine": "fine"}


def source(plan: Plan, size: str) -> str:
    """What to open for a size: the converted folder, or where there is none, the recipe itself."""
    folder = plan.models / size
    return str(folder) if (folder / MARKER).exists() else f"random:{size}"


@lru_cache(maxsize=2)
def checkpoint(plan: Plan, size: str) -> Checkpoint:
    return open_model(source(plan, size))


def place(plan: Plan, dtype: str, engine: str = "", n_slots: int = 1) -> select.Placement:
    """Where a network runs: on the engine that is measured unless another is named."""
    engine = engine or plan.engine
    device = plan.device_name if engine == plan.engine else "cpu"
    return select.Placement(engine, device, device, dtype, n_slots)


def new_decoder(plan: Plan, size: str, dtype: str, stage: str, engine: str = "", n_slots: int = 1) -> Any:
    """The semantic or coarse network."""
    weights = checkpoint(plan, size).stage(COMPONENTS[stage])
    placement = place(plan, dtype, engine, n_slots)
    return select.build_decoder(stage, weights.config, weights.tensors, placement, weights.content)


@lru_cache(maxsize=1)
def build_decoder(plan: Plan, size: str, dtype: str, stage: str, engine: str = "", n_slots: int = 1) -> Decoder:
    """The same; the last one is kept."""
    return new_decoder(plan, size, dtype, stage, engine, n_slots)


@lru_cache(maxsize=1)
def build_refiner(plan: Plan, size: str, dtype: str, engine: str = "") -> Refiner:
    """The fine network; the last one is kept."""
    weights = checkpoint(plan, size).stage("fine")
    return select.build_refiner(weights.config, weights.tensors, place(plan, dtype, engine), weights.content)


def build_codec(plan: Plan, size: str, dtype: str = "float32", engine: str = "") -> Codec:
    weights = checkpoint(plan, size).codec()
    return select.build_codec(weights.config, weights.tensors, place(plan, dtype, engine))


def open_bark(plan: Plan, size: str, dtype: str, engine: str = "") -> Bark:
    """A loaded Bark, all of it on one engine."""
    engine = engine or plan.engine
    dtype = "float32" if plan.interpreted else dtype
    tokenizer = vocabulary(plan.work)
    bark = Bark(source(plan, size), device=plan.device_name, dtype=dtype, engine=engine, tokenizer=tokenizer)
    bark.load()
    return bark


# --- on a GPU: the engine's decoder with options of its own


def storage(plan: Plan, dtype: str) -> torch.dtype:
    """What activations and cache are stored in."""
    return select.torch_dtype(select.half_dtype(plan.device_name) if dtype == "int8" else dtype)


def cuda_decoder(plan: Plan, config: GPTConfig, tensors: Any, dtype: str, stage: str, **options: Any) -> Any:
    """A decoder of the cuda engine.

    Args:
        options: `options`, `network` and `n_slots` of CudaDecoder.

    Raises: NotRun where the kernels of the variant cannot be used.
    """
    from barkfast.runtime.cuda.decoder import CudaDecoder

    try:
        return CudaDecoder(
            config,
            tensors,
            stage=stage,
            device=plan.device,
            dtype=storage(plan, dtype),
            int8=dtype == "int8",
            **options,
        )
    except EngineError as error:
        raise NotRun(str(error)) from error


def direct(plan: Plan, variant: Any) -> Any:
    """Options for launches without graphs, of a variant's kernels."""
    from barkfast.runtime.cuda.device import Options

    return Options(graphs=False, pdl=Options.for_device(plan.device).pdl, variant=variant)


@lru_cache(maxsize=2)
def narrow_weights(stage: str) -> tuple[GPTConfig, dict[str, torch.Tensor]]:
    """The smallest network, with Bark's heads, vocabularies and context, that the CUDA kernels of a step serve."""
    config = GPTConfig(2, 2, 128, *VOCABULARIES[COMPONENTS[stage]], bias=False)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in gpt_shapes(config).items()}
    return config, tensors


def build_narrow(plan: Plan, dtype: str, stage: str, *, n_slots: int = 1, options: Any) -> Any:
    """The cuda engine's decoder of that network. Raises: NotRun where the device has no such kernels."""
    if options.variant.kernels == "cuda" and not has_hopper(plan):
        raise NotRun("the CUDA kernels of a step need a device of compute capability 9.0")
    config, tensors = narrow_weights(stage)
    return cuda_decoder(plan, config, tensors, dtype, stage, n_slots=n_slots, options=options)


def has_hopper(plan: Plan) -> bool:
    """Whether the device can run the CUDA kernels of a step."""
    return plan.device.type == "cuda" and torch.cuda.get_device_capability(plan.device) >= (9, 0)
