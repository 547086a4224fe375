"""A 10 s clip from text to samples, with and without a voice; and the memory that a process with it takes."""

import resource
import sys
from pathlib import Path
from typing import Any

from barkfast.bark import Bark
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, Clip, Workload, speak
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.rows import clip_row

# What targets are set for is measured more often.
OFTEN, MOST = ("small int8",), 3
WARM_UP_S = 0.5


def run(plan: Plan, record: Recorder, part: str) -> None:
    """With a voice first: it is the harder case, and targets are set for it."""
    networks.use_threads(plan)
    size_name, dtype = part.split()[:2]
    size = model_size(plan, size_name)
    before = peak_bytes()
    bark = networks.open_bark(plan, size, dtype)
    loaded = peak_bytes()
    most = MOST if f"{size_name} {dtype}" in OFTEN and not plan.smoke else 1
    speak(bark, Workload(seconds=min(WARM_UP_S, plan.clip_s)), 0)
    for voice in (True, False):
        name = f"{size} {dtype}, {'full voice' if voice else 'no voice'}, {plan.threads} threads"
        work = lambda voice=voice: time_clips(plan, bark, size, dtype, voice, most)  # noqa: E731
        record.measure(name, work, dtype=dtype)
    work = lambda: memory(plan, size, dtype, before, loaded)  # noqa: E731
    record.measure(f"{size} {dtype}, memory, {plan.threads} threads", work, dtype=dtype)


def time_clips(plan: Plan, bark: Bark, size: str, dtype: str, with_voice: bool, most: int) -> dict[str, Any]:
    """Whole clips, as many as there is time for."""
    case = Workload(voice=FULL_VOICE if with_voice else NO_VOICE, seconds=plan.clip_s)
    clips: list[Clip] = []
    while not clips or (len(clips) < most and plan.time_left > 2.5 * sum(clips[-1].seconds.values())):
        clips.append(speak(bark, case, 1 + len(clips)))
    row = {"size": size, "dtype": dtype, "voice": with_voice, "threads": plan.threads}
    return row | clip_row(clips)


def peak_bytes() -> int:
    """The most memory that this process has had in use, pages of mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory(plan: Plan, size: str, dtype: str, before: int, loaded: int) -> dict[str, Any]:
    """Of a process with all stages resident that has spoken; mapped weights can be shared and given back."""
    return {
        "size": size,
        "dtype": dtype,
        "threads": plan.threads,
        "before_bytes": before,
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(),
        **resident_bytes(),
    }


def resident_bytes() -> dict[str, int]:
    """What is resident now, by what it is, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    names = {"RssAnon:": "anonymous_bytes", "RssFile:": "file_bytes"}
    fields = [line.split() for line in lines]
    return {names[field[0]]: int(field[1]) * 1024 for field in fields if field and field[0] in names}
