"""One token at a time: the decode step of each network, with a short context and one as long as it gets.

On a CPU a part names size and threads. On a GPU the section times the kernels that this run's section `ab` found
fastest against those it compared with; with the part `all`, every size and dtype, and other ways to launch.
"""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from barkfast_kernels.variant import DEFAULT, VARIANTS, Variant
from benchmarks import networks
from benchmarks.budget import CPU_DTYPES
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.steps import PROMPTS, mean_context, step_row, time_rounds
from benchmarks.tuned import best_variant
from benchmarks.verdict import BASE

# Of a CPU, whose steps take long.
CPU_ROUNDS, TORCH_ROUNDS = 3, 1


@dataclass(frozen=True)
class Way:
    """How steps are launched on a GPU; `label` names the variant."""

    name: str
    graphs: bool = True
    pdl: bool = True
    variant: Variant = DEFAULT
    label: str = "default"


@dataclass(frozen=True)
class Case:
    """What is timed."""

    size: str
    dtype: str
    engine: str = "cuda"
    way: Way = field(default_factory=lambda: GRAPHS)


GRAPHS = Way("graphs")
HOPPER = Way("graphs, CUDA kernels", variant=VARIANTS["C9 C8, weights to L2"], label="C9 C8, weights to L2")
WAYS = (Way("direct launches", graphs=False), Way("graphs without PDL", pdl=False))
# In the order of their worth.
GPU_CASES = [
    *(Case("large", dtype, way=way) for way in (GRAPHS, HOPPER) for dtype in ("bfloat16", "int8")),
    *(Case("large", "bfloat16", way=way) for way in WAYS),
    *(Case("small", dtype, way=way) for way in (GRAPHS, HOPPER) for dtype in ("bfloat16", "int8")),
    *(Case("large", dtype) for dtype in ("float16", "float32")),
]


def run(plan: Plan, record: Recorder, part: str = "") -> None:
    for case in cpu_cases(plan, part) if plan.threads else gpu_cases(plan, part):
        how = f" {case.way.name}" if case.engine == "cuda" else "" if case.engine == plan.engine else f" {case.engine}"
        for stage, prompts in PROMPTS.items():
            for prompt in prompts[:1] if plan.smoke else prompts:
                name = f"{case.size} {case.dtype} {stage} {round(mean_context(plan, prompt))}{how}{plan.of_threads()}"
                record.measure(name, partial(time_step, plan, case, stage, prompt), dtype=case.dtype)


def cpu_cases(plan: Plan, part: str) -> list[Case]:
    """All dtypes; the torch engine in float32 for comparison."""
    size = plan.size(part.split()[0])
    return [*(Case(size, dtype, "cpu") for dtype in CPU_DTYPES), Case(size, "float32", "torch")]


def gpu_cases(plan: Plan, part: str) -> list[Case]:
    """Everything; or the best variant and the base, or where nothing was compared the one that runs by itself."""
    if part == "all":
        return [Case("nano", "float32"), Case("nano", "int8")] if plan.smoke else GPU_CASES
    size = plan.size("large")
    config = networks.checkpoint(plan, size).stage("coarse").config
    found = []
    for dtype in ("float32",) if plan.smoke else ("bfloat16", "int8"):
        label, variant = best_variant(plan, config, dtype)
        ways = Way("best", variant=variant, label=label), Way("base", variant=VARIANTS[BASE], label=BASE)
        found += [Case(size, dtype, way=way) for way in ways]
    return found


@lru_cache(maxsize=1)
def decoder_of(plan: Plan, case: Case, stage: str) -> Any:
    """Kept from one context to the next."""
    if case.engine != "cuda":
        return networks.new_decoder(plan, case.size, case.dtype, stage, case.engine)
    from barkfast.runtime.cuda.device import Options

    weights, way = networks.checkpoint(plan, case.size).stage(networks.COMPONENTS[stage]), case.way
    options = Options(graphs=way.graphs, pdl=way.pdl and Options.for_device(plan.device).pdl, variant=way.variant)
    return networks.cuda_decoder(plan, weights.config, weights.tensors, case.dtype, stage, options=options)


def time_step(plan: Plan, case: Case, stage: str, prompt: int) -> dict[str, Any]:
    """A row: what was run, time per step, bytes and bytes per second."""
    decoder = decoder_of(plan, case, stage)
    rounds = {"cpu": CPU_ROUNDS, "torch": TORCH_ROUNDS}.get(case.engine)
    times = time_rounds(plan, decoder, prompt, **({} if rounds is None else {"rounds": rounds}))
    row = step_row(plan, decoder, case.size, case.dtype, prompt, times)
    if case.engine != "cuda":
        return row
    require_graphs(plan, decoder, case.way.graphs)
    return row | {"way": case.way.name, "label": case.way.label, "variant": case.way.variant.to_dict()}


def require_graphs(plan: Plan, decoder: Any, wanted: bool = True) -> None:
    """Raise RuntimeError if steps that were to be replayed were launched one by one."""
    if wanted and not plan.smoke and not decoder.graphs.enabled:
        raise RuntimeError("graph capture failed: this would be the time of direct launches")
