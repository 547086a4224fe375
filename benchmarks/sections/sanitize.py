"""What runs under compute-sanitizer: every kernel of the smallest model, both ways of a decode step, few tokens."""

from typing import Any

import numpy as np

from barkfast.config import Sampling
from barkfast.jobs import FineJob
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.refiner import CudaRefiner
from benchmarks import inputs, models
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.sections.gate import SIZE


def run(plan: Plan, record: Recorder) -> None:
    """Direct launches: under the sanitizer memory is not pooled, which captured graphs would need."""
    for n_slots, dtype in ((1, "bfloat16"), (1, "int8"), (3, "bfloat16"), (16, "bfloat16")):
        for stage in ("semantic", "coarse"):
            work = lambda a=(stage, dtype, n_slots): decode(plan, *a)  # noqa: E731
            record.measure(f"{stage} {dtype} {n_slots}", work)
    record.measure("fine", lambda: fill(plan))


def decode(plan: Plan, stage: str, dtype: str, n_slots: int) -> dict[str, Any]:
    """A few tokens, without and with filters."""
    layout = inputs.checkpoint(plan, SIZE).layout
    options = Options(graphs=False, pdl=Options.for_device(plan.device).pdl)
    decoder = models.build_decoder(plan, SIZE, dtype, stage, n_slots=n_slots, options=options)
    jobs = [inputs.step_job(stage, layout, 1 + 63 * i, 5, i) for i in range(2)]
    filtered = inputs.step_job(stage, layout, 1019, 5, 3)
    filtered = type(filtered)(filtered.prompt, 5, filtered.slices, Sampling(0.7, 50, 0.9), random=filtered.random)
    tokens = decoder.run([*jobs, filtered])
    return {"ok": True, "tokens": sum(map(len, tokens))}


def fill(plan: Plan) -> dict[str, Any]:
    """A short window."""
    weights = inputs.checkpoint(plan, SIZE).stage("fine")
    refiner = CudaRefiner(
        weights.config,
        weights.tensors,
        device=plan.device,
        dtype=models.storage(plan, "int8"),
        options=Options(graphs=False),
    )
    window = refiner.refine(FineJob(np.zeros((100, 8), np.int32), 0, 2, 1024, Sampling(0.5)))
    return {"ok": True, "codes": int(window.size)}
