"""Traces in Chrome's format: ranges with their times, merged with the kernels that the profiler saw."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from barkfast.bench import trace
from barkfast.bench.trace import Tracer, keep_events
from barkfast.bench.workload import Workload, open_bark, speak
from barkfast.engine.utterance import Utterance
from barkfast.errors import InputError


def events_in(path: Path) -> list[dict[str, Any]]:
    """The complete events of a file. Fails if Chrome could not read it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for event in content["traceEvents"]:
        assert {"name", "ph", "pid"} <= event.keys()
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0 and isinstance(event["tid"], int | str)
    return [event for event in content["traceEvents"] if event["ph"] == "X"]


def test_ranges_hold_what_happened_in_them(tmp_path: Path):
    tracer = Tracer()
    with tracer.range("outer"):
        time.sleep(0.002)
        with tracer.range("inner"):
            time.sleep(0.002)
    tracer.write(tmp_path / "trace.json")
    outer, inner = events_in(tmp_path / "trace.json")
    assert (outer["name"], inner["name"]) == ("outer", "inner")
    assert outer["ts"] == 0 and outer["dur"] >= 4000
    assert inner["ts"] >= 2000 and inner["ts"] + inner["dur"] <= outer["dur"] + 0.01


def test_a_range_that_fails_is_in_the_trace(tmp_path: Path):
    tracer = Tracer()
    with pytest.raises(ValueError, match="wrong"), tracer.range("stage"):
        raise ValueError("wrong")
    tracer.write(tmp_path / "trace.json")
    assert [event["name"] for event in events_in(tmp_path / "trace.json")] == ["stage"]


def test_a_clip_has_its_stages_and_windows(tmp_path: Path):
    workload = Workload(model="random:nano", device="cpu", engine="torch", seconds=0.5)
    bark = open_bark(workload)
    bark.load()
    tracer = Tracer(workload.device)
    begin, take = Utterance.begin, Utterance.take
    with tracer.watch():
        clip = speak(bark, workload, 0, tracer=tracer)
    tracer.write(tmp_path / "trace.json")
    events = events_in(tmp_path / "trace.json")
    stages = [event for event in events if not event["name"].endswith("window")]
    assert [event["name"] for event in stages] == list(clip.seconds)
    for event in stages:
        assert event["dur"] / 1e6 == pytest.approx(clip.seconds[event["name"]], rel=0.05, abs=1e-3)
    windows = [event["name"] for event in events if event["name"].endswith("window")]
    # 0.5 s are 25 semantic tokens and 74 coarse ones, in windows of 60.
    assert windows == ["coarse window", "coarse window", "fine window"]
    # The patched methods are restored.
    assert Utterance.begin is begin and Utterance.take is take


def test_ranges_are_nvtx_ranges_on_cuda(monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", calls.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: calls.append("pop"))
    tracer = Tracer("cuda:0")
    with tracer.range("coarse"), tracer.range("window"):
        calls.append("work")
    assert calls == ["coarse", "window", "work", "pop", "pop"]


def test_operations_of_torch_stand_in_the_range_that_they_ran_in(tmp_path: Path):
    tracer, x = Tracer(kernels=True), torch.ones(64, 64)
    with tracer.range("first"):
        time.sleep(0.005)
        x @ x
    with tracer.range("second"):
        x.exp()
    tracer.write(tmp_path / "trace.json")
    events = events_in(tmp_path / "trace.json")
    ranges = {event["name"]: event for event in events if event["pid"] == trace.RANGES}
    for name, operation in (("first", "aten::matmul"), ("second", "aten::exp")):
        found = next(event for event in events if event["name"] == operation)
        start, end = ranges[name]["ts"], ranges[name]["ts"] + ranges[name]["dur"]
        assert start <= found["ts"] and found["ts"] + found["dur"] <= end


def test_of_a_gpu_only_what_ran_there_and_the_ranges_are_kept():
    def event(name: str, cat: str) -> dict[str, Any]:
        return {"name": name, "cat": cat, "ph": "X", "ts": 45.0, "dur": 2.0, "pid": 7, "tid": 7, "args": {"stream": 7}}

    profiled = [
        event("product", "user_annotation"),
        event("another", "user_annotation"),
        event("product", "gpu_user_annotation"),
        event("kernel", "kernel"),
        event("aten::mm", "cpu_op"),
    ]
    product, kernel = keep_events(profiled, {"product"}, trace.ON_GPU)
    expected = {"ph": "X", "ts": 45.0, "dur": 2.0, "tid": 7}
    assert product == {"name": "product", "cat": "user_annotation", "pid": trace.RANGES, **expected}
    assert kernel == {"name": "kernel", "cat": "kernel", "pid": trace.KERNELS, **expected}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="cannot write .*missing"):
        Tracer().write(tmp_path / "missing" / "trace.json")


@pytest.mark.gpu
def test_kernels_stand_in_their_range(tmp_path: Path):
    tracer, x = Tracer("cuda", kernels=True), torch.ones(1024, 1024, device="cuda")
    x @ x
    with tracer.range("product"):
        (x @ x).cpu()
    tracer.write(tmp_path / "trace.json")
    events = events_in(tmp_path / "trace.json")
    whole = next(event for event in events if event["pid"] == trace.RANGES)
    kernels = [event for event in events if event["cat"] == "kernel"]
    assert kernels
    for event in kernels:
        assert whole["ts"] - 500 <= event["ts"] <= whole["ts"] + whole["dur"] + 500
