"""Decode steps of any engine as rows: what was run, how long a step took, and the bytes that it reads."""

from contextlib import suppress
from typing import Any

from barkfast.bench.measure import EndedEarly, candidates, in_row, step_job, step_times
from barkfast.bench.roofline import decoder_step_bytes
from barkfast.runtime.decoder import Decoder
from benchmarks import networks
from benchmarks.plan import Plan

# Prompts before the first step of a round, for contexts of about 300, 917 and 1000 in its middle.
PROMPTS = {"semantic": (280, 980), "coarse": (897, 280)}
# Of a round; those of a smoke test.
STEPS, SMOKE_STEPS = 41, 5
# Rounds that count, and that are tried: one whose job ends early by its stop token does not count.
ROUNDS, MOST_ROUNDS = 10, 16


def count_steps(plan: Plan) -> int:
    """Steps of a round."""
    return SMOKE_STEPS if plan.smoke else STEPS


def mean_context(plan: Plan, prompt: int) -> float:
    """Positions attended to, on average over the timed steps of a round."""
    return prompt + (count_steps(plan) + 1) / 2


def time_round(plan: Plan, decoder: Decoder, prompt: int, seed: int, batch: int = 1) -> list[float]:
    """Milliseconds of each step of jobs that run together. Raises: EndedEarly; EngineError if one failed."""
    layout, n = networks.checkpoint(plan, plan.size("small")).layout, count_steps(plan)
    return step_times(decoder, [step_job(decoder.stage, layout, prompt, n, seed + i) for i in range(batch)])


def time_rounds(plan: Plan, decoder: Decoder, prompt: int, *, batch: int = 1, rounds: int = ROUNDS) -> list[float]:
    """Milliseconds per step of several rounds; the first of a GPU compiles, captures and warms up, and does not count.

    Raises: RuntimeError if no round ran to its end.
    """
    found: list[list[float]] = []
    warm_up = not (plan.threads or plan.smoke)
    for trial in range(MOST_ROUNDS):
        with suppress(EndedEarly):
            found.append(time_round(plan, decoder, prompt, 64 * trial, batch))
        if len(found) == (1 if plan.smoke else rounds) + warm_up:
            break
    times = [ms for one in found[warm_up:] for ms in one]
    if not times:
        raise RuntimeError(f"none of {MOST_ROUNDS} rounds ran to its end")
    return times


def step_row(
    plan: Plan, decoder: Decoder, size: str, dtype: str, prompt: int, times: list[float], batch: int = 1
) -> dict[str, Any]:
    """A row of steps that were timed, in milliseconds on a CPU and microseconds on a GPU."""
    layout, context = networks.checkpoint(plan, size).layout, mean_context(plan, prompt)
    job = step_job(decoder.stage, layout, prompt, 2, 0)
    parts = decoder_step_bytes(decoder, context=context, candidates=candidates(job), batch=batch)
    unit = {"ms": times} if plan.threads else {"us": [value * 1e3 for value in times]}
    ((name, values),) = unit.items()
    return {
        "size": size,
        "dtype": dtype,
        "stage": decoder.stage,
        "engine": decoder.engine,
        "threads": plan.threads,
        "batch": batch,
        "context": context,
        "bytes": {"layers": parts.layers, "head": parts.head, "kv": parts.kv, "total": parts.total},
    } | in_row(name, values, 4 if plan.threads else 2)
