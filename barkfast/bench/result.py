"""A result of `barkfast bench`: a dict that barkfast/bench/schema.json describes, valid from its start on."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from barkfast.bench.machine import describe_machine
from barkfast.bench.measure import Limits, summarize
from barkfast.bench.roofline import Work
from barkfast.bench.workload import STAGES, UNITS, Clip, Workload, is_random
from barkfast.files import replacing

SCHEMA = 1
COMPLETE, PARTIAL, RED = "complete", "partial", "gate red"
OK, NOT_RUN, FAILED = "ok", "not run", "failed"


def new_result(workload: Workload, repeats: int) -> dict[str, Any]:
    """A result with nothing measured yet; the workload must be resolved."""
    checkpoint = workload.open()
    return {
        "schema": SCHEMA,
        "kind": "bench",
        "status": PARTIAL,
        "seconds": 0.0,
        "environment": describe_machine(workload.device),
        "case": {
            "model": checkpoint.name,
            **{key: getattr(workload, key) for key in ("device", "engine", "dtype", "voice")},
            "seconds": float(workload.seconds),
            "repeats": repeats,
            "seed": workload.seed,
            "random_weights": is_random(checkpoint),
        },
        "gate": {"ok": False, "checks": []},
        "limits": None,
        "contenders": [],
        "batch": [],
    }


def new_row(name: str) -> dict[str, Any]:
    """A backend that has not been loaded yet."""
    head = {"name": name, "version": None, "dtype": "", "status": NOT_RUN, "reason": "the run ended before its turn"}
    found = dict.fromkeys(("real_time_factor", "first_audio_s", "start_up", "memory"))
    return {**head, **found, "clips": [], "stages": []}


def describe_check(check: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the check; numbers that JSON does not have, of logits that are not finite, become null."""

    def finite(number: float | None) -> float | None:
        return None if number is None or not math.isfinite(number) else float(number)

    return {**check, "value": finite(check["value"]), "limit": finite(check["limit"]), "ok": bool(check["ok"])}


def describe_limits(limits: Limits, codec_limits: Limits) -> dict[str, Any]:
    """Both, and every way they were measured; of the codec's dtype the products alone."""
    ways = list(limits.ways)
    names = {way["name"] for way in ways}
    ways += [way for way in codec_limits.ways if way["unit"] == "TFLOP/s" and way["name"] not in names]
    return {"read_gb_per_s": limits.read_gb_per_s, "tflop_per_s": limits.tflop_per_s, "ways": ways}


def describe_clips(
    spoken: Sequence[tuple[int, Clip]], work: Mapping[str, Work], limits: Mapping[str, Limits]
) -> dict[str, Any]:
    """What the clips of a backend amount to.

    Args:
        spoken: seed and clip of each, at least one.
        work, limits: by stage, where known.
    """
    clips = [clip for _, clip in spoken]
    return {
        "clips": [{"seed": seed, "seconds": dict(clip.seconds), "audio_s": clip.audio_s} for seed, clip in spoken],
        "real_time_factor": summarize([clip.real_time_factor for clip in clips]),
        "first_audio_s": summarize([clip.first_audio_s for clip in clips]),
        "stages": [describe_stage(stage, clips, work.get(stage), limits.get(stage)) for stage in STAGES],
    }


def describe_stage(stage: str, clips: Sequence[Clip], work: Work | None, limits: Limits | None) -> dict[str, Any]:
    """One stage of clips, at least one, that are equally long.

    Args:
        work: what the stage must read and compute; None where that is not known.
        limits: of the machine, in the stage's dtype.
    """
    count, seconds = clips[-1].counts[stage], summarize([clip.seconds[stage] for clip in clips])
    line = {
        "stage": stage,
        "count": count,
        "unit": UNITS[stage],
        "s": seconds,
        "ms_per_count": seconds["median"] / count * 1e3,
        **dict.fromkeys(("bytes", "flop", "gb_per_s", "tflop_per_s", "limit", "share")),
    }
    if work is None or limits is None:
        return line
    read = work.bytes / limits.read_gb_per_s / 1e9
    compute = work.flop / limits.tflop_per_s / 1e12
    # A stage that decodes reads for its steps and computes for its prompts, one after the other; for whole windows
    # the weights are read while the machine computes.
    decodes = UNITS[stage] == "tokens"
    return line | {
        "bytes": work.bytes,
        "flop": work.flop,
        "operations": work.operations,
        "gb_per_s": work.bytes / seconds["median"] / 1e9,
        "tflop_per_s": work.flop / seconds["median"] / 1e12,
        "limit": "read" if decodes and read > compute else "compute",
        "share": (read + compute if decodes else compute) / seconds["median"],
    }


def write_result(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Replace `path` in one go."""
    with replacing(path) as file:
        file.write((json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
