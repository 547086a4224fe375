"""Several together: the time of a step that advances all of them, and on a GPU as many whole clips at a time."""

import time
from functools import partial
from typing import Any

from barkfast.bench.measure import summarize
from barkfast.bench.workload import TEXT
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder
from benchmarks.steps import step_row, time_rounds

# Of a GPU the largest first: a target is set for it.
CPU_BATCHES, GPU_BATCHES = (1, 4, 8), (64, 1, 16, 4)
PROMPTS = {"semantic": 280, "coarse": 897}
# Runs of clips at most, and rounds of steps.
RUNS, CPU_ROUNDS, GPU_ROUNDS = 5, 1, 5


def run(plan: Plan, record: Recorder) -> None:
    """Steps by dtype, network and batch; a decoder has as many slots as are filled."""
    size = plan.size("small" if plan.threads else "large")
    dtypes = ("int8", "bfloat16") if plan.threads else ("bfloat16",)
    batches = (1, 2) if plan.smoke else CPU_BATCHES if plan.threads else GPU_BATCHES
    for dtype in ("float32",) if plan.interpreted else dtypes[:1] if plan.smoke else dtypes:
        # Milliseconds of a step of one, by network.
        alone: dict[str, float] = {}
        for batch in batches[-1:] if plan.interpreted else batches:
            for stage in ("coarse",) if plan.interpreted else PROMPTS:
                work = partial(time_steps, plan, size, dtype, stage, batch, alone)
                record.measure(f"{size} {dtype} {stage}, {batch} together{plan.of_threads()}", work, dtype=dtype)
            if not plan.threads:
                work = partial(time_clips, plan, size, dtype, batch)
                record.measure(f"{size} {dtype} clips, batch {batch}", work, dtype=dtype)


def time_steps(plan: Plan, size: str, dtype: str, stage: str, batch: int, alone: dict[str, float]) -> dict[str, Any]:
    """Time per step, and how many times as fast a token is as one alone."""
    decoder = networks.build_decoder(plan, size, dtype, stage, n_slots=batch)
    rounds = CPU_ROUNDS if plan.threads else GPU_ROUNDS
    times = time_rounds(plan, decoder, PROMPTS[stage], batch=batch, rounds=rounds)
    each = summarize(times)["median"] / batch
    if batch == 1:
        alone[stage] = each
    gain = round(alone[stage] / each, 2) if stage in alone else None
    row = step_row(plan, decoder, size, dtype, PROMPTS[stage], times, batch)
    return row | {"ms_per_token": round(each, 4), "times_one_alone": gain}


def time_clips(plan: Plan, size: str, dtype: str, batch: int) -> dict[str, Any]:
    """Seconds of audio per second of work, from texts to samples; the first run warms up."""
    bark = networks.open_bark(plan, size, dtype)
    sentence = {"text": TEXT, "min_eos_p": None, "max_duration_s": plan.clip_s}
    seconds: list[float] = []
    audio_s = 0.0
    for number in range(1 if plan.smoke else RUNS + 1):
        needed = 1.2 * (seconds[-1] if seconds else 0.0)
        if needed > plan.time_left:
            break
        start = time.perf_counter()
        spoken = bark.generate_batch([sentence | {"seed": batch * number + i} for i in range(batch)])
        seconds.append(time.perf_counter() - start)
        audio_s = sum(one.duration for one in spoken)
    timed = seconds if plan.smoke else seconds[1:]
    if not timed:
        raise NotRun(f"warming up took {seconds[0]:.0f} s, and {plan.time_left:.0f} s were left")
    middle = summarize(timed)["median"]
    row = {"size": size, "dtype": dtype, "batch": batch, "runs": len(timed), "audio_s": round(audio_s, 3)}
    return row | {"seconds": round(middle, 4), "times_real_time": round(audio_s / middle, 2)}
