"""Timing, and summaries of times."""

import time

import torch

from barkfast.bench.measure import in_row, queue_times, summarize, wall_times

CPU = torch.device("cpu")


def test_summaries():
    values = [float(n) for n in range(100, 0, -1)]
    assert summarize(values) == {"median": 50.5, "p95": 95.0, "min": 1.0, "max": 100.0, "n": 100}
    assert summarize([3.0]) == {"median": 3.0, "p95": 3.0, "min": 3.0, "max": 3.0, "n": 1}
    assert in_row("ms", [1.0, 2.0], digits=1) == {
        "ms_median": 1.5,
        "ms_p95": 2.0,
        "ms_min": 1.0,
        "ms_max": 2.0,
        "ms_n": 2,
    }


def test_times_are_those_of_the_work():
    assert queue_times(CPU, [lambda: time.sleep(0.02)] * 2)[1] >= 20
    assert wall_times(CPU, lambda: time.sleep(0.02), least=1, most=1, seconds=0)[0] >= 20


def test_calls_are_as_many_as_fit():
    assert len(wall_times(CPU, lambda: None, least=3, most=5, seconds=0)) == 3
    assert len(wall_times(CPU, lambda: None, least=3, most=5, seconds=9)) == 5
