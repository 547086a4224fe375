"""Compile the kernels beside the tests, into Triton's cache, so that the sections find them there.

Nothing that is measured depends on it: what fails here is compiled, or fails, where it is needed.
"""

from typing import Any

import numpy as np
import torch

from barkfast.bench.measure import step_job
from barkfast.bench.peers import PEERS
from barkfast.bench.workload import Workload
from barkfast.config import FineConfig, GPTConfig, Layout, Sampling
from barkfast.jobs import FineJob
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.refiner import CudaRefiner
from barkfast.runtime.sampling import Randomness
from barkfast.stages.semantic import semantic_job
from barkfast.weights.random import SIZES, VOCABULARIES
from barkfast.weights.shapes import gpt_shapes
from barkfast_kernels.variant import DEFAULT, VARIANTS, Variant
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder

# Slots whose kernels are not those of a step of one.
BATCHES = (64, 16, 4)
# Processes that share the variants of a dtype.
SHARES = 4
COMPILED = "compiled"


def run(plan: Plan, record: Recorder, part: str) -> None:
    """A few steps of both stages on weights of the right shapes.

    Args:
        part: "batch", "peer", or a dtype and which share of the variants, such as "int8 2".
    """
    if part == "peer":
        record.measure("the compiled peer", lambda: compile_peer(plan))
        return
    size, stages = ("nano", ("coarse",)) if plan.smoke else ("large", ("coarse", "semantic"))
    if part == "batch":
        for n_slots in BATCHES:
            for stage in stages:
                work = lambda a=(size, "bfloat16", stage, n_slots): decode(plan, *a)  # noqa: E731
                record.measure(f"{stage} of {n_slots} slots", work)
        return
    dtype, _, share = part.rpartition(" ")
    dtype = "float32" if plan.smoke else dtype
    if share == "0" and dtype != "int8":
        record.measure(f"fine {dtype}", lambda: fill(plan, size, dtype))
    labels = [label for label, variant in VARIANTS.items() if variant.kernels == "triton" or networks.has_hopper(plan)]
    for label in labels[int(share) :: SHARES][: 1 if plan.smoke else None]:
        for stage in stages:
            work = lambda a=(size, dtype, stage, 1, VARIANTS[label]): decode(plan, *a)  # noqa: E731
            record.measure(f"{stage} {dtype} {label}", work)


def compile_peer(plan: Plan) -> dict[str, Any]:
    """A second of speech by the peer that torch compiles, which keeps what it compiled on disk."""
    if plan.smoke or COMPILED not in PEERS:
        raise NotRun("the interpreter compiles nothing" if plan.smoke else f"there is no peer {COMPILED!r}")
    peer = PEERS[COMPILED](Workload(networks.source(plan, plan.size("large")), device=plan.device_name))
    try:
        peer.load()
        peer.speak(0, 1.0)
    finally:
        peer.close()
    return {"ok": True}


def weights(plan: Plan, size: str, stage: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A network's configuration, and something for weights."""
    n_layer, n_head, n_embd, _ = SIZES[size]
    make = FineConfig if stage == "fine" else GPTConfig
    config = make(n_layer, n_head, n_embd, *VOCABULARIES[networks.COMPONENTS[stage]], bias=False)
    tensors = {
        name: torch.randn(shape, device=plan.device, dtype=torch.bfloat16) * 0.02
        for name, shape in gpt_shapes(config).items()
    }
    return config, tensors


def decode(plan: Plan, size: str, dtype: str, stage: str, n_slots: int, variant: Variant = DEFAULT) -> dict[str, Any]:
    """A prompt and a few steps, launched directly."""
    config, tensors = weights(plan, size, stage)
    decoder = CudaDecoder(
        config,
        tensors,
        stage=stage,
        device=plan.device,
        dtype=networks.storage(plan, dtype),
        int8=dtype == "int8",
        n_slots=n_slots,
        options=Options(graphs=False, pdl=Options.for_device(plan.device).pdl, variant=variant),
    )
    jobs = [step_job(stage, Layout(), 60 + i, 4, i) for i in range(n_slots)]
    if stage == "semantic":
        # A length of its own, for which some kernels are compiled anew.
        ids, text = np.arange(20), {"max_duration_s": 0.05, "random": Randomness(0)}
        jobs.append(semantic_job(ids, Layout(), Sampling(0.7), min_eos_p=0.2, **text))
    decoder.run(jobs)
    return {"ok": True}


def fill(plan: Plan, size: str, dtype: str) -> dict[str, Any]:
    """One fine pass."""
    config, tensors = weights(plan, size, "fine")
    refiner = CudaRefiner(config, tensors, device=plan.device, dtype=networks.storage(plan, dtype))
    frames = 16 if plan.smoke else 1024
    refiner.refine(FineJob(np.zeros((frames, 8), np.int32), 0, 2, 1024, Sampling(0.5)))
    return {"ok": True}
