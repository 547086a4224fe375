"""The networks under test, on the native engine or on torch's: nothing here falls back from one to the other."""

from functools import lru_cache
from types import ModuleType

import torch

from barkfast.bark import Bark
from barkfast.native import load_native, native_status
from barkfast.runtime import select
from barkfast.runtime.decoder import Codec, Decoder, Refiner
from benchmarks import inputs
from benchmarks.plan import Plan
from benchmarks.sources import source, vocabulary


def require_native() -> ModuleType:
    """The native module."""
    native = load_native()
    if native is None:
        raise RuntimeError(f"the native module is {native_status()[1]}")
    return native


def place(dtype: str, engine: str, n_slots: int = 1) -> select.Placement:
    """On this CPU."""
    return select.Placement(engine, "cpu", "cpu", dtype, n_slots)


@lru_cache(maxsize=1)
def build_decoder(plan: Plan, size: str, dtype: str, stage: str, engine: str = "cpu", n_slots: int = 1) -> Decoder:
    """The semantic or coarse network; the last one is kept."""
    weights = inputs.checkpoint(plan, size).stage(inputs.COMPONENTS[stage])
    placement = place(dtype, engine, n_slots)
    return select.build_decoder(stage, weights.config, weights.tensors, placement, weights.content)


@lru_cache(maxsize=1)
def build_refiner(plan: Plan, size: str, dtype: str, engine: str = "cpu") -> Refiner:
    """The fine network; the last one is kept."""
    weights = inputs.checkpoint(plan, size).stage("fine")
    return select.build_refiner(weights.config, weights.tensors, place(dtype, engine), weights.content)


def build_codec(plan: Plan, size: str, dtype: str = "float32", engine: str = "cpu") -> Codec:
    """The codec's decoder."""
    weights = inputs.checkpoint(plan, size).codec()
    return select.build_codec(weights.config, weights.tensors, place(dtype, engine))


def open_bark(plan: Plan, size: str, dtype: str, engine: str = "cpu") -> Bark:
    """A loaded Bark, all of it on one engine."""
    bark = Bark(source(plan, size), device="cpu", dtype=dtype, engine=engine, tokenizer=vocabulary(plan.work))
    bark.load()
    return bark


def use_threads(plan: Plan) -> None:
    """Let torch use as many threads as the engine does."""
    torch.set_num_threads(plan.threads)
