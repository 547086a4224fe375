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

from barkfast.bark import Bark
from barkfast.engine.utterance import Utterance
from barkfast.files import replacing

# The process ids that the file has for the ranges and for what torch's profiler saw: two groups of lines.
RANGES, KERNELS = 1, 2
# What of the profiler's events is taken over: on a GPU what ran there, on other devices torch's operations.
ON_GPU, ON_HOST = ("kernel", "gpu_memcpy", "gpu_memset"), ("cpu_op",)
# Stage -> the name of a range for each of its windows.
WINDOWS = {"coarse": "coarse window", "fine": "fine window"}
# Moments that both clocks see, when the profiler starts: the first ones take it longer.
MARK, MARKS = "barkfast's clock", 5


class Tracer:
    """Remembers ranges with their times.

    Args:
        device: as barkfast names it; on CUDA every range is an NVTX range too.
        kernels: merge in what torch's profiler sees, from the first range until `write`: the device's kernels and
            copies on CUDA, torch's operations elsewhere. It slows the host down; times of kernels stay true.

    A stage ends with its result on the host, so that no range waits for the device on its own.
    """

    def __init__(self, device: str = "cpu", *, kernels: bool = False) -> None:
        self.on_gpu = device.startswith("cuda")
        self.kernels = kernels
        self.events: list[dict[str, Any]] = []
        self._profile: Any = None
        self._marks: list[float] = []

    @contextmanager
    def range(self, name: str, **details: Any) -> Iterator[None]:
        """What happens in the block, under a name; also when it ends by an exception."""
        if self.kernels and self._profile is None:
            self._start_profile()
        with self._marked(name):
            start = time.perf_counter_ns()
            try:
                yield
            finally:
                self._add(name, start, time.perf_counter_ns(), details)

    @contextmanager
    def _marked(self, name: str) -> Iterator[None]:
        """For the tools that listen: NVTX's, and torch's profiler."""
        import torch

        with ExitStack() as stack:
            if self.on_gpu:
                torch.cuda.nvtx.range_push(name)
                stack.callback(torch.cuda.nvtx.range_pop)
            if self._profile is not None:
                stack.enter_context(torch.profiler.record_function(name))
            yield

    def _add(self, name: str, start: int, end: int, details: dict[str, Any]) -> None:
        event = {"name": name, "cat": "stage", "ph": "X", "ts": start / 1e3, "dur": (end - start) / 1e3}
        self.events.append(event | {"pid": RANGES, "tid": 1, "args": details})

    @contextmanager
    def watch(self, bark: Bark) -> Iterator[None]:
        """In the block, a range for each window of a coarse or fine stage."""
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

    def _start_profile(self) -> None:
        import torch
        from torch.profiler import ProfilerActivity, profile

        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
        self._profile = profile(activities=kinds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._profile.start()
        for _ in range(MARKS):
            with torch.profiler.record_function(MARK):
                self._marks.append(time.perf_counter_ns() / 1e3)

    def _profiled(self) -> list[dict[str, Any]]:
        """What the profiler saw, on our clock."""
        if self._profile is None:
            return []
        profile, self._profile = self._profile, None
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "profile.json"
            profile.export_chrome_trace(str(path))
            found = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
        return merge(self._marks, [event for event in found if event.get("ph") == "X"], self.on_gpu)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, and end the profiler. Raises: OutputError."""
        kernels = self._profiled()
        shown = sorted([*self.events, *kernels], key=lambda event: event["ts"])
        first = shown[0]["ts"] if shown else 0
        shown = [event | {"ts": round(event["ts"] - first, 3), "dur": round(event["dur"], 3)} for event in shown]
        names = {RANGES: "barkfast"} | ({KERNELS: "GPU" if self.on_gpu else "torch"} if kernels else {})
        titles = [
            {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}} for pid, name in names.items()
        ]
        content = json.dumps({"displayTimeUnit": "ms", "traceEvents": [*titles, *shown]})
        with replacing(path) as file:
            file.write(content.encode())


def merge(marks: list[float], profiled: list[dict[str, Any]], on_gpu: bool) -> list[dict[str, Any]]:
    """The profiler's events of interest, moved from its clock to ours.

    Args:
        marks: moments on our clock, in microseconds; the profiler has an annotation MARK that began just before each.
        profiled: the profiler's complete events, times in microseconds.
    """
    theirs = sorted(event["ts"] for event in profiled if event["name"] == MARK and event["cat"] == "user_annotation")
    if not marks or len(theirs) != len(marks):
        return []
    shift = min(ours - their for ours, their in zip(marks, theirs, strict=True))
    kinds = ON_GPU if on_gpu else ON_HOST
    return [
        {key: event[key] for key in ("name", "cat", "ph", "dur", "tid")} | {"ts": event["ts"] + shift, "pid": KERNELS}
        for event in profiled
        if event.get("cat") in kinds
    ]
