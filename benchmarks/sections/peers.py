"""barkfast and the others on the same device, weights and clip, in the same run."""

import importlib.util
import time
from dataclasses import replace
from functools import partial
from typing import Any

from barkfast.bench.backends import OURS, Backend, Ours
from barkfast.bench.backends import NotRun as CannotRun
from barkfast.bench.measure import in_row, summarize
from barkfast.bench.peers import PEERS, CompiledPeer
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, Clip, Workload
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder

# Length of the clip that warms up, at most; clips of each on a GPU.
WARM_UP_S, MOST = 1.0, 3
# What `bark` needs on a GPU to be loaded and to speak once.
BARK_S = 35
# On a GPU ours, then each by its worth as a measure; `bark`, the slowest, is last.
GPU_ROWS = {
    "barkfast bfloat16": "bfloat16",
    "barkfast int8": "int8",
    "compiled": "auto",
    "transformers": "auto",
    "bark": "auto",
}
CPU_PEERS = ("bark", "transformers")


def run(plan: Plan, record: Recorder, part: str = "") -> None:
    """On a CPU one clip each, with a voice, for it takes minutes; ours is in the section `clips`."""
    if plan.threads:
        size = plan.size(part)
        for name in CPU_PEERS:
            record.measure(f"{name} {size}, full voice", partial(time_peer, plan, name, size, voice=True, warm=False))
        return
    leave = BARK_S if importlib.util.find_spec("bark") else 0
    for row, dtype in GPU_ROWS.items():
        name, ours = row.split()[0], row.startswith(OURS)
        # Peers are timed whatever the check says; ours are not while it is red.
        if ours and not plan.smoke and not plan.dtypes:
            continue
        options = {"most": 1 if plan.smoke else MOST, "leave": 0 if name == "bark" else leave, "dtype": dtype}
        work = partial(time_peer, plan, name, plan.size("large"), **options)
        record.measure(row, work, dtype=dtype if ours and not plan.smoke else None)


def time_peer(
    plan: Plan,
    name: str,
    size: str,
    *,
    voice: bool = False,
    most: int = 1,
    warm: bool = True,
    leave: float = 0,
    dtype: str = "auto",
) -> dict[str, Any]:
    """Real-time factors and milliseconds per semantic token of up to `most` clips, one if time is short.

    Args:
        name: of a peer, or barkfast.
        voice: whether to speak in one that fills every history.
        warm: whether to speak a short clip first.
        leave: seconds of the section that are to be left to others.
        dtype: of barkfast; peers choose theirs.
    """
    workload = Workload(
        networks.source(plan, size),
        device=plan.device_name,
        voice=FULL_VOICE if voice else NO_VOICE,
        seconds=plan.clip_s,
    )
    backend = make(plan, name, workload, dtype)
    clips: list[Clip] = []
    try:
        backend.load()
        if warm:
            backend.speak(0, min(WARM_UP_S, plan.clip_s))
        begin = time.monotonic()
        while not clips or (
            len(clips) < most and plan.time_left - leave > 1.3 * (time.monotonic() - begin) / len(clips)
        ):
            clips.append(backend.speak(len(clips)))
    except CannotRun as error:
        raise NotRun(str(error)) from error
    finally:
        backend.close()
    per_token = [clip.seconds["semantic"] / clip.counts["semantic"] * 1e3 for clip in clips]
    return {
        "size": size,
        "peer": name,
        "voice": voice,
        "threads": plan.threads,
        "audio_s": clips[-1].audio_s,
        "last_seconds": clips[-1].seconds,
        "ms_per_semantic_token": summarize(per_token)["median"],
        "version": backend.version,
        "dtype": backend.dtype,
    } | in_row("real_time_factor", [clip.real_time_factor for clip in clips])


def make(plan: Plan, name: str, workload: Workload, dtype: str) -> Backend:
    """The backend of that name."""
    if name == OURS:
        # Triton's interpreter takes half a minute for a clip, and other sections show that it runs.
        options = {"engine": "torch", "dtype": "float32"} if plan.smoke else {"engine": plan.engine, "dtype": dtype}
        return Ours(replace(workload, **options))
    backend = PEERS[name](workload)
    if plan.smoke and isinstance(backend, CompiledPeer):
        # Traced as for the compiler, which itself would take most of the smoke test.
        backend.backend = "eager"
    return backend
