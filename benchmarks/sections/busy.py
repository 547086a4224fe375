"""What becomes of a clip, a prompt, a step and the codec when other processes want the cores, too."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from barkfast.bark import Bark
from barkfast.bench.measure import in_row, step_job, wall_times
from barkfast.cores import physical_cores
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.sections.stages import prompt_job

TEXT = "Hello there. This is what a busy machine makes of a sentence."
ROUNDS = 4
STEPS = 40
# Positions of a coarse prompt at full history.
PROMPT = 887


def run(plan: Plan, record: Recorder, part: str) -> None:
    """Idle and busy in turn. Which engine is `part`'s first word."""
    engine = part.split()[0]
    for name, work in works(plan, engine).items():
        row = {"what": name, "engine": engine, "threads": plan.threads}
        measure = lambda work=work, row=row: row | time_both(plan, work)  # noqa: E731
        record.measure(f"{name}, {engine}, {plan.threads} threads", measure)


def works(plan: Plan, engine: str) -> dict[str, Callable[[], object]]:
    """What is timed, each with one call; the engine's default dtype, Bark-small and the demo voice."""
    size, dtype = plan.size("small"), "bfloat16" if engine == "cpu" else "float32"
    semantic, coarse = (networks.new_decoder(plan, size, dtype, s, engine) for s in ("semantic", "coarse"))
    layout = networks.checkpoint(plan, size).layout
    codec = networks.build_codec(plan, size, engine=engine)
    codes = np.random.default_rng(0).integers(0, layout.codebook_size, (8, 150)).astype(np.int32)
    steps = 4 if plan.smoke else STEPS if engine == "cpu" else 10
    demo = Bark("demo", device="cpu", engine=engine, dtype=dtype)
    demo.load()
    return {
        "clip of the demo voice": lambda: demo.generate(TEXT, seed=3),
        f"coarse prompt of {PROMPT}": lambda: coarse.run([prompt_job(layout, "coarse", PROMPT)]),
        f"{steps} semantic steps": lambda: semantic.run([step_job("semantic", layout, 270, steps, 0)]),
        "codec, 2 s": lambda: codec.decode(codes),
    }


def time_both(plan: Plan, work: Callable[[], object]) -> dict[str, Any]:
    """Milliseconds beside nothing and beside as many busy loops as there are cores."""
    loops = physical_cores()
    times: dict[str, list[float]] = {"idle_ms": [], "busy_ms": []}
    work()
    for _ in range(1 if plan.smoke else ROUNDS):
        times["idle_ms"].append(time_once(work))
        with busy_loops(loops):
            times["busy_ms"].append(time_once(work))
    row: dict[str, Any] = {"loops": loops}
    for name, found in times.items():
        row |= in_row(name, found, 2)
    return row | {"ratio": round(row["busy_ms_median"] / row["idle_ms_median"], 3)}


def time_once(work: Callable[[], object]) -> float:
    return wall_times(torch.device("cpu"), work, least=1, most=1, seconds=0)[0]


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can, for the length of the block."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        for loop in loops:
            assert loop.stdout is not None
            loop.stdout.readline()
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()
