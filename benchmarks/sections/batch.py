"""Several at a time: step time, and the aggregate real-time factor of as many 10 s clips."""

import time
from functools import lru_cache
from typing import Any

import numpy as np

from barkfast.config import Sampling
from barkfast.runtime import select
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from benchmarks import inputs, models
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder
from benchmarks.sections.decode import describe, mean_context, step_row, time_rounds

BATCHES = (64, 1, 16, 4)
PROMPTS = {"semantic": 280, "coarse": 897}
STAGES = ("semantic", "coarse", "fine", "codec")


def run(plan: Plan, record: Recorder) -> None:
    """The largest batch first: a target is set for it."""
    dtype = "float32" if plan.smoke else "bfloat16"
    for batch in (2,) if plan.smoke else BATCHES:
        # The clips take steps of both.
        for stage in ("coarse",) if plan.smoke else PROMPTS:
            work = lambda a=(dtype, stage, batch): time_step(plan, *a)  # noqa: E731
            record.measure(f"{plan.largest} {dtype} {stage} step, batch {batch}", work, dtype=dtype)
        work = lambda a=(dtype, batch): time_clips(plan, *a)  # noqa: E731
        record.measure(f"{plan.largest} {dtype} clips, batch {batch}", work, dtype=dtype)


@lru_cache(maxsize=2)
def decoder_of(plan: Plan, dtype: str, stage: str, batch: int) -> CudaDecoder:
    """One per stage, kept for the clips."""
    return models.build_decoder(plan, plan.largest, dtype, stage, n_slots=batch)


@lru_cache(maxsize=1)
def rest(plan: Plan, dtype: str) -> tuple[Any, Any]:
    """Refiner and codec."""
    model = inputs.checkpoint(plan, plan.largest)
    fine, codec, place = model.stage("fine"), model.codec(), models.placement(plan, dtype)
    refiner = select.build_refiner(fine.config, fine.tensors, place)
    return refiner, select.build_codec(codec.config, codec.tensors, place)


def time_step(plan: Plan, dtype: str, stage: str, batch: int) -> dict[str, Any]:
    """As of one sequence, but for all slots."""
    decoder = decoder_of(plan, dtype, stage, batch)
    prompt = PROMPTS[stage]
    times, rows = time_rounds(plan, decoder, prompt, batch=batch, rounds=5)
    return describe(plan, decoder, plan.largest, dtype, mean_context(plan, prompt), rows, batch) | step_row(times)


def time_clips(plan: Plan, dtype: str, batch: int) -> dict[str, Any]:
    """All clips from text to samples; the first time through warms up."""
    begin = time.monotonic()
    if not plan.smoke:
        speak(plan, dtype, batch, 0)
    each = time.monotonic() - begin
    if not plan.smoke and plan.time_left < each + 3:
        raise NotRun(f"warming up took {each:.0f} s, and {plan.time_left:.0f} s were left")
    runs = []
    while not runs or (len(runs) < 5 and not plan.smoke and plan.time_left > 3 * each + 10):
        runs.append(speak(plan, dtype, batch, 1 + len(runs)))
    runs.sort(key=lambda one: one["real_time_factor"])
    middle = runs[len(runs) // 2]
    return {
        "size": plan.largest,
        "dtype": dtype,
        "batch": batch,
        "runs": len(runs),
        "real_time_factors": [round(one["real_time_factor"], 5) for one in runs],
        "times_real_time": round(1 / middle["real_time_factor"], 2),
    } | middle


def speak(plan: Plan, dtype: str, batch: int, seed: int) -> dict[str, Any]:
    """Semantic tokens of all in one run, coarse windows in lockstep, fine and codec one after the other."""
    semantic, coarse = (decoder_of(plan, dtype, stage, batch) for stage in ("semantic", "coarse"))
    refiner, codec = rest(plan, dtype)
    layout = inputs.checkpoint(plan, plan.largest).layout
    rng = np.random.default_rng(seed)
    randoms = [Randomness(1000 * seed + i) for i in range(batch)]
    marks = [time.perf_counter()]
    jobs = [
        semantic_job(
            rng.integers(0, 100_000, 30),
            layout,
            Sampling(0.7),
            max_duration_s=plan.clip_s,
            allow_early_stop=False,
            random=random,
        )
        for random in randoms
    ]
    tokens = semantic.run(jobs)
    marks.append(time.perf_counter())
    windows = [CoarseWindows(t, layout, Sampling(0.7), random=r) for t, r in zip(tokens, randoms, strict=True)]
    while (first := [w.next_job() for w in windows])[0] is not None:
        for window, drawn in zip(windows, coarse.run([job for job in first if job is not None]), strict=True):
            window.append(drawn)
    marks.append(time.perf_counter())
    fine = []
    for window, random in zip(windows, randoms, strict=True):
        filler = FineWindows(window.codes(), layout, Sampling(0.5), random=random)
        while (job := filler.next_job()) is not None:
            filler.append(refiner.refine(job))
        fine.append(filler.codes())
    marks.append(time.perf_counter())
    audio_s = sum(len(codec.decode(codes)) for codes in fine) / layout.sample_rate
    marks.append(time.perf_counter())
    seconds = {stage: round(b - a, 4) for stage, a, b in zip(STAGES, marks, marks[1:], strict=False)}
    return {"audio_s": audio_s, "seconds": seconds, "real_time_factor": (marks[-1] - marks[0]) / audio_s}
