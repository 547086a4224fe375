"""One token at a time: the decode step of each network, short and long context, batch 1.

By itself the section times the kernels that this run's section `ab` found fastest against those it compared with; with
the part `all`, every size and dtype, and other ways to launch.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from barkfast.bench.measure import in_row, queue_times, summarize
from barkfast.bench.roofline import step_bytes
from barkfast.errors import EngineError
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options, on_device
from barkfast.runtime.cuda.run import STEPS_PER_REPLAY
from barkfast_kernels.slots import FAILED
from barkfast_kernels.variant import DEFAULT, VARIANTS, Variant
from benchmarks import inputs, models
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder
from benchmarks.tuned import best_variant
from benchmarks.variants import BASE

# Prompt before the first timed step, for a context of about 300, 917 and 1000 in the middle of a round.
PROMPTS = {"semantic": (280, 980), "coarse": (897, 280)}
REPLAYS = 10
ROUNDS = 10
# Rounds that are tried: one whose job ends at once by its stop token is not counted.
MOST_ROUNDS = 16


@dataclass(frozen=True)
class Way:
    """How steps are launched; `label` names the variant."""

    name: str
    graphs: bool = True
    pdl: bool = True
    variant: Variant = DEFAULT
    label: str = "default"


GRAPHS = Way("graphs")
HOPPER = Way("graphs, CUDA kernels", variant=VARIANTS["C9 C8, weights to L2"], label="C9 C8, weights to L2")
WAYS = (Way("direct launches", graphs=False), Way("graphs without PDL", pdl=False))
# Size, dtype, way, in the order of their worth.
CASES = [
    ("large", "bfloat16", GRAPHS),
    ("large", "int8", GRAPHS),
    ("large", "bfloat16", HOPPER),
    ("large", "int8", HOPPER),
    *(("large", "bfloat16", way) for way in WAYS),
    ("small", "bfloat16", GRAPHS),
    ("small", "int8", GRAPHS),
    ("small", "bfloat16", HOPPER),
    ("small", "int8", HOPPER),
    ("large", "float16", GRAPHS),
    ("large", "float32", GRAPHS),
]


def run(plan: Plan, record: Recorder, part: str = "") -> None:
    """A row per case, network and context."""
    for size, dtype, way in all_cases(plan) if part == "all" else best_cases(plan):
        for stage, prompts in PROMPTS.items():
            for prompt in prompts[:1] if plan.smoke else prompts:
                name = f"{size} {dtype} {stage} {round(mean_context(plan, prompt))} {way.name}"
                work = lambda a=(size, dtype, stage, way), p=prompt: time_step(plan, *a, p)  # noqa: E731
                record.measure(name, work, dtype=dtype)


def all_cases(plan: Plan) -> list[tuple[str, str, Way]]:
    if not plan.smoke:
        return CASES
    return [("nano", "float32", GRAPHS), ("nano", "int8", GRAPHS)]


def best_cases(plan: Plan) -> list[tuple[str, str, Way]]:
    """The best variant and the base, of both dtypes, or where nothing was compared the one that runs by itself."""
    config = inputs.checkpoint(plan, plan.largest).stage("coarse").config
    found = []
    for dtype in ("float32",) if plan.smoke else ("bfloat16", "int8"):
        label, variant = best_variant(plan, config, dtype)
        ways = Way("best", variant=variant, label=label), Way("base", variant=VARIANTS[BASE], label=BASE)
        found += [(plan.largest, dtype, way) for way in ways]
    return found


def replays(plan: Plan) -> int:
    return 1 if plan.smoke else REPLAYS


def mean_context(plan: Plan, prompt: int) -> float:
    """Positions attended to, on average over the timed steps of a round."""
    return prompt + (replays(plan) * STEPS_PER_REPLAY + 1) / 2


@lru_cache(maxsize=1)
def decoder_of(plan: Plan, size: str, dtype: str, stage: str, way: Way) -> CudaDecoder:
    """Kept from one context to the next."""
    pdl = way.pdl and Options.for_device(plan.device).pdl
    options = Options(graphs=way.graphs, pdl=pdl, variant=way.variant)
    try:
        return models.build_decoder(plan, size, dtype, stage, options=options)
    except EngineError as error:
        if way.variant.kernels == "cuda":
            raise NotRun(str(error)) from error
        raise


def time_round(
    plan: Plan, decoder: CudaDecoder, prompt: int, seed: int, *, batch: int = 1
) -> tuple[list[float], bool, int]:
    """Milliseconds per step, one value per replay; whether all jobs ran to their end; head rows that a step reads."""
    layout = inputs.checkpoint(plan, plan.largest).layout
    steps = replays(plan) * STEPS_PER_REPLAY
    jobs = [inputs.step_job(decoder.stage, layout, prompt, 1 + steps, seed=seed + i) for i in range(batch)]
    with on_device(decoder.device):
        slots = [decoder.admit(job) for job in jobs]
        times = queue_times(decoder.device, [lambda: decoder.launch(slots, STEPS_PER_REPLAY)] * replays(plan))
        whole = all_ran(decoder, slots, 1 + steps)
        for slot in slots:
            decoder.release(slot)
    return [value / STEPS_PER_REPLAY for value in times], whole, inputs.candidates(jobs[0])


def time_rounds(
    plan: Plan, decoder: CudaDecoder, prompt: int, *, batch: int = 1, rounds: int = ROUNDS
) -> tuple[list[float], int]:
    """Milliseconds per step, one value per replay, and the head rows that a step reads."""
    times: list[float] = []
    done, rows = 0, 0
    for trial in range(MOST_ROUNDS):
        of_round, whole, rows = time_round(plan, decoder, prompt, 64 * trial, batch=batch)
        # The first compiles, captures and warms up. One whose job has ended early would be timed at rest.
        if (trial and whole) or (plan.smoke and whole):
            times += of_round
            done += 1
        if done == (1 if plan.smoke else rounds):
            break
    if not times:
        raise RuntimeError(f"none of {MOST_ROUNDS} rounds ran to its end")
    return times, rows


def all_ran(decoder: CudaDecoder, slots: list[int], drawn: int) -> bool:
    """Whether every slot has drawn that many tokens; an error if one failed."""
    snapshot = decoder.take_snapshot()
    snapshot.wait()
    if any(snapshot.status(slot) == FAILED.value for slot in slots):
        raise RuntimeError("logits are not finite")
    return all(snapshot.drawn(slot) == drawn for slot in slots)


def time_step(plan: Plan, size: str, dtype: str, stage: str, way: Way, prompt: int) -> dict[str, Any]:
    """A row: what was run, time per step, bytes and bytes per second."""
    decoder = decoder_of(plan, size, dtype, stage, way)
    times, rows = time_rounds(plan, decoder, prompt)
    if way.graphs and not plan.smoke and not decoder.graphs.enabled:
        raise RuntimeError("graph capture failed: this would be the time of direct launches")
    context = mean_context(plan, prompt)
    how = {"way": way.name, "label": way.label, "variant": way.variant.to_dict()}
    return describe(plan, decoder, size, dtype, context, rows, 1) | how | step_row(times)


def describe(
    plan: Plan, decoder: CudaDecoder, size: str, dtype: str, context: float, rows: int, batch: int
) -> dict[str, Any]:
    """What was run, and the bytes one step of it reads."""
    parts = step_bytes(
        decoder.config,
        dtype=dtype,
        context=context,
        candidates=rows,
        batch=batch,
        storage=str(models.storage(plan, dtype)).removeprefix("torch."),
    )
    return {
        "size": size,
        "dtype": dtype,
        "stage": decoder.stage,
        "context": context,
        "batch": batch,
        "steps_per_replay": STEPS_PER_REPLAY,
        "bytes": {"layers": parts.layers, "head": parts.head, "kv": parts.kv, "total": parts.total},
    }


def step_row(times: list[float]) -> dict[str, Any]:
    """Time per step in microseconds."""
    return in_row("us", [value * 1e3 for value in times], 2) | {"median_ms": summarize(times)["median"]}
