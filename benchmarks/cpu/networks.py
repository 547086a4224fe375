"""The networks under test, on the native engine or on torch's: nothing here falls back from one to the other."""

from functools import lru_cache
from types import ModuleType
from typing import Any

import torch

from barkfast.bark import Bark
from barkfast.native import load_native, native_status
from barkfast.runtime import select
from barkfast.runtime.decoder import Codec, Decoder, Refiner
from benchmarks import inputs
from benchmarks.plan import Plan
from benchmarks.sources import source, vocabulary

ENGINES = {"cpu": "Cpu", "torch": "Torch"}


def require_native() -> ModuleType:
    """The native module."""
    native = load_native()
    if native is None:
        raise RuntimeError(f"the native module is {native_status()[1]}")
    return native


def place(dtype: str, engine: str, n_slots: int = 1) -> select.Placement:
    """On this CPU."""
    return select.Placement(engine, "cpu", "cpu", dtype, n_slots)


def require_engine(network: Any, engine: str) -> Any:
    """The network, unless another engine serves in the place of the one that is to be measured."""
    kind = type(network).__name__
    if not kind.startswith(ENGINES[engine]):
        raise RuntimeError(f"{kind} serves in the place of the {engine} engine; the log says why")
    return network


@lru_cache(maxsize=1)
def build_decoder(plan: Plan, size: str, dtype: str, stage: str, engine: str = "cpu", n_slots: int = 1) -> Decoder:
    """The semantic or coarse network; the last one is kept."""
    weights = inputs.checkpoint(plan, size).stage(inputs.PARTS[stage])
    placement = place(dtype, engine, n_slots)
    decoder = select.build_decoder(stage, weights.config, weights.tensors, placement, weights.content)
    return require_engine(decoder, engine)


@lru_cache(maxsize=1)
def build_refiner(plan: Plan, size: str, dtype: str, engine: str = "cpu") -> Refiner:
    """The fine network; the last one is kept."""
    weights = inputs.checkpoint(plan, size).stage("fine")
    refiner = select.build_refiner(weights.config, weights.tensors, place(dtype, engine), weights.content)
    return require_engine(refiner, engine)


def build_codec(plan: Plan, size: str, dtype: str = "float32", engine: str = "cpu") -> Codec:
    """The codec's decoder."""
    weights = inputs.checkpoint(plan, size).codec()
    return require_engine(select.build_codec(weights.config, weights.tensors, place(dtype, engine)), engine)


def open_bark(plan: Plan, size: str, dtype: str, engine: str = "cpu") -> Bark:
    """A loaded Bark, all of it on one engine."""
    bark = Bark(source(plan, size), device="cpu", dtype=dtype, engine=engine, tokenizer=vocabulary(plan.work))
    bark.load()
    for part in ("text", "coarse", "fine", "codec"):
        require_engine(bark.parts.network(part), engine)
    return bark


def use_threads(plan: Plan) -> None:
    """Let torch use as many threads as the engine does."""
    torch.set_num_threads(plan.threads)
