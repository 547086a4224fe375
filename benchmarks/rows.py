"""What clips amount to, as entries of a section's row."""

from collections.abc import Sequence
from typing import Any

from barkfast.bench.measure import in_row, summarize
from barkfast.bench.workload import STAGES, Clip


def clip_row(clips: Sequence[Clip]) -> dict[str, Any]:
    """Stages' seconds and real-time factors of clips that are all as long."""
    return {
        "audio_s": clips[-1].audio_s,
        "median_s": {stage: summarize([clip.seconds[stage] for clip in clips])["median"] for stage in STAGES},
    } | in_row("real_time_factor", [clip.real_time_factor for clip in clips], 5)
