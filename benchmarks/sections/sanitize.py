"""What runs under compute-sanitizer: every kernel of small models, all ways of a decode step, few tokens."""

from typing import Any

import numpy as np

from barkfast.bench.measure import step_job
from barkfast.config import Layout, Sampling
from barkfast.jobs import FineJob
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.refiner import CudaRefiner
from barkfast_kernels.variant import VARIANTS, Variant
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import Recorder

SIZE = "nano"
# As first written, and with everything.
CUDA_VARIANTS = ("C0 as first written", "C9 C8, weights to L2")


def run(plan: Plan, record: Recorder) -> None:
    """Direct launches: under the sanitizer memory is not pooled, which captured graphs would need."""
    for n_slots, dtype in ((1, "bfloat16"), (1, "int8"), (3, "bfloat16"), (16, "bfloat16")):
        for stage in ("semantic", "coarse"):
            work = lambda a=(stage, dtype, n_slots): decode(plan, *a)  # noqa: E731
            record.measure(f"{stage} {dtype} {n_slots}", work)
    record.measure("fine", lambda: fill(plan))
    for label in CUDA_VARIANTS:
        for n_slots, dtype in ((1, "bfloat16"), (3, "int8")):
            for stage in ("semantic", "coarse"):
                work = lambda a=(stage, dtype, n_slots, VARIANTS[label]): decode_cuda(plan, *a)  # noqa: E731
                record.measure(f"{stage} {dtype} {n_slots}, {label}", work)


def decode_cuda(plan: Plan, stage: str, dtype: str, n_slots: int, variant: Variant) -> dict[str, Any]:
    """The same with kernels in CUDA, of the smallest network that they serve."""
    options = Options(graphs=False, pdl=Options.for_device(plan.device).pdl, variant=variant)
    decoder = networks.build_narrow(plan, dtype, stage, n_slots=n_slots, options=options)
    return speak(stage, decoder, Layout())


def decode(plan: Plan, stage: str, dtype: str, n_slots: int) -> dict[str, Any]:
    """A few tokens, without and with filters."""
    layout = networks.checkpoint(plan, SIZE).layout
    options = Options(graphs=False, pdl=Options.for_device(plan.device).pdl)
    weights = networks.checkpoint(plan, SIZE).stage(networks.COMPONENTS[stage])
    decoder = networks.cuda_decoder(
        plan, weights.config, weights.tensors, dtype, stage, n_slots=n_slots, options=options
    )
    return speak(stage, decoder, layout)


def speak(stage: str, decoder: CudaDecoder, layout: Layout) -> dict[str, Any]:
    """Prompts of several lengths, one of them up to the end of the cache."""
    jobs = [step_job(stage, layout, 1 + 63 * i, 5, i) for i in range(2)]
    filtered = step_job(stage, layout, 1019, 5, 3)
    filtered = type(filtered)(filtered.prompt, 5, filtered.slices, Sampling(0.7, 50, 0.9), random=filtered.random)
    tokens = decoder.run([*jobs, filtered])
    return {"ok": True, "tokens": sum(map(len, tokens))}


def fill(plan: Plan) -> dict[str, Any]:
    """A short window."""
    weights = networks.checkpoint(plan, SIZE).stage("fine")
    refiner = CudaRefiner(
        weights.config,
        weights.tensors,
        device=plan.device,
        dtype=networks.storage(plan, "int8"),
        options=Options(graphs=False),
    )
    window = refiner.refine(FineJob(np.zeros((100, 8), np.int32), 0, 2, 1024, Sampling(0.5)))
    return {"ok": True, "codes": int(window.size)}
