"""The coarse stage of a 10 s clip by `max_coarse_history`: less context, less to read again."""

import time
from typing import Any

import numpy as np

from barkfast.bench.reference import run_windows
from barkfast.bench.workload import full_voice
from barkfast.config import Sampling
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.semantic import count_steps
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import Recorder

HISTORIES = (60, 120, 240, 630)


def run(plan: Plan, record: Recorder) -> None:
    """With a voice, so that every window has as much history as it may."""
    size = plan.size("small")
    for history in HISTORIES:
        work = lambda history=history: time_coarse(plan, size, "int8", history)  # noqa: E731
        record.measure(f"{size} int8, history of {history}, {plan.threads} threads", work, dtype="int8")


def time_coarse(plan: Plan, size: str, dtype: str, history: int) -> dict[str, Any]:
    """Seconds for all windows of a clip, prompts included."""
    decoder = networks.build_decoder(plan, size, dtype, "coarse")
    layout = networks.checkpoint(plan, size).layout
    voice = full_voice(layout)
    n = count_steps(plan.clip_s, layout.semantic)
    semantic = np.random.default_rng(0).integers(0, layout.semantic.vocab_size, n)
    windows = CoarseWindows(
        semantic,
        layout,
        Sampling(0.7),
        history=(voice["semantic_prompt"], voice["coarse_prompt"]),
        max_history=history,
        random=Randomness(0),
    )
    start = time.perf_counter()
    run_windows(windows, lambda job: decoder.run([job])[0])
    seconds = time.perf_counter() - start
    row = {"size": size, "dtype": dtype, "threads": plan.threads, "max_coarse_history": history}
    return row | {"tokens": windows.n_done, "windows": windows.n_windows, "seconds": round(seconds, 3)}
