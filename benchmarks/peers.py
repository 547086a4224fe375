"""barkfast and the others, in the same run, on the same weights, for the same clip, as rows of a section."""

import time
from dataclasses import replace
from typing import Any

from barkfast.bench.backends import OURS, Backend, Ours
from barkfast.bench.backends import NotRun as CannotRun
from barkfast.bench.measure import in_row, summarize
from barkfast.bench.peers import PEERS, CompiledPeer
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, Clip, Workload
from benchmarks.plan import Plan
from benchmarks.record import NotRun
from benchmarks.sources import source

# Length of the clip that warms up, at most.
WARM_UP_S = 1.0


def time_peer(
    plan: Plan,
    name: str,
    size: str,
    *,
    voice: bool = False,
    most: int = 1,
    warm: bool = True,
    leave: float = 0,
    clip_s: float | None = None,
    dtype: str = "auto",
) -> dict[str, Any]:
    """Real-time factors and milliseconds per semantic token of up to `most` clips, one if time is short.

    Args:
        name: of a peer, or barkfast.
        voice: whether to speak in one that fills every history.
        warm: whether to speak a short clip first.
        leave: seconds of the section that are to be left to others.
        clip_s: another length than the run's clips have.
        dtype: of barkfast; peers choose theirs.
    """
    length = clip_s or plan.clip_s
    case = Workload(
        source(plan, size), device=plan.device_name, voice=FULL_VOICE if voice else NO_VOICE, seconds=length
    )
    peer = make(plan, name, case, dtype)
    try:
        peer.load()
        if warm:
            peer.speak(0, min(WARM_UP_S, length))
        begin = time.monotonic()
        clips: list[Clip] = []
        while not clips or (
            len(clips) < most and plan.time_left - leave > 1.3 * (time.monotonic() - begin) / len(clips)
        ):
            clips.append(peer.speak(len(clips)))
    except CannotRun as error:
        raise NotRun(str(error)) from error
    finally:
        peer.close()
    per_token = [clip.seconds["semantic"] / clip.counts["semantic"] * 1e3 for clip in clips]
    return {
        "audio_s": clips[-1].audio_s,
        "last_seconds": clips[-1].seconds,
        "ms_per_semantic_token": summarize(per_token)["median"],
        "version": peer.version,
        "dtype": peer.dtype,
    } | in_row("real_time_factor", [clip.real_time_factor for clip in clips], 4)


def make(plan: Plan, name: str, case: Workload, dtype: str) -> Backend:
    """The backend of that name."""
    if name == OURS:
        # Triton's interpreter takes half a minute for a clip, and other sections show that it runs.
        options = {"engine": "torch", "dtype": "float32"} if plan.smoke else {"engine": "cuda", "dtype": dtype}
        return Ours(replace(case, **options))
    peer = PEERS[name](case)
    if plan.smoke and isinstance(peer, CompiledPeer):
        # Traced as for the compiler, which itself would take most of the smoke test.
        peer.backend = "eager"
    return peer
