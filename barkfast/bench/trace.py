"""Named ranges of a run as a Chrome trace, and as NVTX ranges on a GPU.

A `Tracer` marks ranges (`with tracer.range("coarse"): ...`) and writes a file for chrome://tracing or
https://ui.perfetto.dev.
"""

import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from barkfast.files import replacing

# The process ids in the file of the ranges and of what torch's profiler recorded: two groups of lines.
RANGES, KERNELS = 1, 2
# The profiler's events that are kept: on a GPU what ran there, on other devices torch's operations.
ON_GPU, ON_HOST = ("kernel", "gpu_memcpy", "gpu_memset"), ("cpu_op",)
# Stage -> the name of a range for each of its windows.
WINDOWS = {"coarse": "coarse window", "fine": "fine window"}


class Tracer:
    """Records ranges with their times.

    Args:
        device: as barkfast names it; on CUDA every range is an NVTX range too.
        kernels: with torch's profiler, from the first range until `write`: the device's kernels and copies on CUDA,
            torch's operations elsewhere. It slows the host down; times of kernels stay true.

    A stage ends with its result on the host, so that no range waits for the device on its own.
    """

    def __init__(self, device: str = "cpu", *, kernels: bool = False) -> None:
        self.on_gpu = device.startswith("cuda")
        self.events: list[dict[str, Any]] = []
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        self._profile = torch.profiler.profile(activities=kinds[: 1 + self.on_gpu]) if kernels else None

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        """What happens in the block, under a name; also when it ends by an exception."""
        with ExitStack() as stack:
            if self._profile is not None:
                if not self.events:
                    _quietly(self._profile.start)
                stack.enter_context(torch.profiler.record_function(name))
            if self.on_gpu:
                torch.cuda.nvtx.range_push(name)
                stack.callback(torch.cuda.nvtx.range_pop)
            event: dict[str, Any] = {
                "name": name,
                "cat": "user_annotation",
                "ph": "X",
                "ts": time.perf_counter_ns() / 1e3,
                "tid": 1,
            }
            self.events.append(event)
            try:
                yield
            finally:
                event["dur"] = time.perf_counter_ns() / 1e3 - event["ts"]

    @contextmanager
    def watch(self) -> Iterator[None]:
        """In the block, a range for each window of a coarse or fine stage."""
        from barkfast.engine.utterance import Utterance

        begin, take = Utterance.begin, Utterance.take
        with ExitStack() as rest:
            running: dict[Any, ExitStack] = {}

            def begin_range(utterance: Utterance, work: Any) -> None:
                begin(utterance, work)
                if work.stage in WINDOWS:
                    running[utterance] = rest.enter_context(ExitStack())
                    running[utterance].enter_context(self.range(WINDOWS[work.stage]))

            def end_range(utterance: Utterance, work: Any, result: Any = None) -> None:
                if utterance in running:
                    running.pop(utterance).close()
                take(utterance, work, result)

            # On the class, in front of its own.
            rest.callback(setattr, Utterance, "begin", begin)
            rest.callback(setattr, Utterance, "take", take)
            setattr(Utterance, "begin", begin_range)  # noqa: B010
            setattr(Utterance, "take", end_range)  # noqa: B010
            yield

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, and end the profiler. Raises: OutputError."""
        events = self.events
        if self._profile is not None and events:
            if self.on_gpu:
                torch.cuda.synchronize()
            _quietly(self._profile.stop)
            # The profiler has its own clock, so that the ranges are taken from it, too.
            names, kinds = {event["name"] for event in events}, ON_GPU if self.on_gpu else ON_HOST
            events = keep_events(export_events(self._profile), names, kinds)
        first = min((event["ts"] for event in events), default=0)
        shown = [
            {"pid": RANGES, **event, "ts": round(event["ts"] - first, 3), "dur": round(event["dur"], 3)}
            for event in sorted(events, key=lambda event: event["ts"])
        ]
        names_of = {RANGES: "barkfast", KERNELS: "GPU" if self.on_gpu else "torch"}
        titles = [
            {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": names_of[pid]}}
            for pid in sorted({event["pid"] for event in shown})
        ]
        with replacing(path) as file:
            file.write(json.dumps({"displayTimeUnit": "ms", "traceEvents": [*titles, *shown]}).encode())


def _quietly(call: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()


def export_events(profile: torch.profiler.profile) -> list[dict[str, Any]]:
    """The complete events of a profiler that was stopped, in Chrome's trace format, times in microseconds."""
    with tempfile.TemporaryDirectory(prefix="barkfast-trace-") as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return [event for event in events if event.get("ph") == "X"]


def keep_events(profiled: list[dict[str, Any]], names: set[str], kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of a profiler's events, the ranges of those names and what is of those kinds, in groups of their own."""
    keys = ("name", "cat", "ph", "ts", "dur", "tid")
    groups = [
        (RANGES, [e for e in profiled if e.get("cat") == "user_annotation" and e["name"] in names]),
        (KERNELS, [e for e in profiled if e.get("cat") in kinds]),
    ]
    return [{key: event[key] for key in keys} | {"pid": pid} for pid, events in groups for event in events]
