"""Are a step's kernels right in every way to run them? A small network's greedy tokens and logits, for the gate."""

from functools import lru_cache
from typing import Any

import numpy as np

from barkfast.bench.check import LOGITS_LIMITS
from barkfast.bench.compare import count_equal, rms_ratio
from barkfast.bench.measure import step_job
from barkfast.bench.teacher_forced import GREEDY
from barkfast.config import Layout
from barkfast.jobs import Job
from barkfast.runtime import select
from barkfast.runtime.cuda.device import Options
from barkfast_kernels.variant import VARIANTS, Variant
from benchmarks import networks
from benchmarks.gate import CUDA
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# The CUDA kernels of the layers, without what only some variants have.
LAYERS = VARIANTS["C4 C3, branchless"]
STAGE = "coarse"


def run(plan: Plan, record: Recorder, part: str) -> None:
    """A row per variant with kernels in CUDA or in Triton, by the part; of CUDA first what opens them for timing."""
    kernels = part.lower()
    if kernels == "cuda":
        record.measure(f"float32 {CUDA}", lambda: check_tokens(plan, LAYERS))
        for dtype in ("bfloat16", "int8"):
            record.measure(f"logits {dtype} {CUDA}", lambda dtype=dtype: check_logits(plan, dtype, LAYERS))
    labels = [label for label, variant in VARIANTS.items() if variant.kernels == kernels]
    # The first is the plainest, the last has everything.
    for label in (labels[0], labels[-1]) if plan.smoke else labels:
        record.measure(label, lambda label=label: check_tokens(plan, VARIANTS[label]))


def make_job(plan: Plan) -> Job:
    """A prompt that fills some splits of the context, and greedy steps."""
    job = step_job(STAGE, Layout(), 20 if plan.smoke else 300, 3 if plan.smoke else 48, 0)
    return Job(job.prompt, job.steps, job.slices, GREEDY)


@lru_cache(maxsize=1)
def expected_tokens(plan: Plan) -> np.ndarray:
    """By the torch engine in float32 on the CPU."""
    config, tensors = networks.narrow_weights(STAGE)
    judge = select.build_decoder(STAGE, config, tensors, networks.place(plan, "float32", "torch"))
    return judge.run([make_job(plan)])[0]


def check_tokens(plan: Plan, variant: Variant) -> dict[str, Any]:
    """Greedy tokens in float32."""
    decoder = networks.build_narrow(plan, "float32", STAGE, options=options_for(plan, variant))
    expected, actual = expected_tokens(plan), decoder.run([make_job(plan)])[0]
    equal = count_equal(expected, actual)
    return {"ok": equal == len(expected), "equal": equal, "tokens": len(expected)}


def check_logits(plan: Plan, dtype: str, variant: Variant) -> dict[str, Any]:
    """How far logits are from those of the Triton kernels in float32, before another token could be chosen."""
    logits = []
    for of_dtype, of_variant in ((dtype, variant), ("float32", VARIANTS["T0 as on the H100"])):
        decoder = networks.build_narrow(plan, of_dtype, STAGE, options=options_for(plan, of_variant))
        slot = decoder.admit(make_job(plan))
        decoder.step()
        logits.append(decoder.logits(slot))
        decoder.release(slot)
    ratio = rms_ratio(logits[1], logits[0])
    return {"ok": ratio < LOGITS_LIMITS["cuda"][dtype], "dtype": dtype, "rms_ratio": ratio}


def options_for(plan: Plan, variant: Variant) -> Options:
    """As steps are timed, but for graphs: they would be captured for a few steps."""
    return Options(graphs=False, pdl=Options.for_device(plan.device).pdl, variant=variant)
