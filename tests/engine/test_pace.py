"""A stream that is made more slowly than it is heard: said once, and only then."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from barkfast.engine import pace
from barkfast.engine.events import Chunk, Done
from barkfast.engine.pace import Pace
from barkfast.engine.task import CodecTask

RATE = 100


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """How often it was said."""
    pace.warn_of_pace.cache_clear()
    with caplog.at_level(logging.WARNING, "barkfast"):
        yield lambda: sum("more slowly than it is heard" in record.message for record in caplog.records)
    pace.warn_of_pace.cache_clear()


def chunk(task: CodecTask, seconds: float) -> Chunk:
    return Chunk(task, np.zeros(round(seconds * RATE), np.float32))


def new_task() -> CodecTask:
    return CodecTask(np.zeros((8, 1), np.int32))


def test_what_comes_in_time_is_no_reason_to_say_anything(said: Any) -> None:
    noted, task = Pace(RATE), new_task()
    # Nobody hears anything before the first chunk, however long that takes.
    noted.note([], 100.0)
    noted.note([chunk(task, 1.0)], 5.0)
    for _ in range(20):
        noted.note([chunk(task, 1.0)], 0.9)
    # What was saved up may be used up, and a little more.
    noted.note([], 3.0)
    noted.note([chunk(task, 1.0)], 0.4)
    assert said() == 0


def test_what_comes_late_is_said_once(said: Any) -> None:
    noted, task = Pace(RATE), new_task()
    noted.note([chunk(task, 1.0)], 5.0)
    for _ in range(3):
        noted.note([], 0.9)
        noted.note([chunk(task, 1.0)], 0.9)
    assert said() == 1


def test_rounds_for_others_count(said: Any) -> None:
    noted, one, two = Pace(RATE), new_task(), new_task()
    noted.note([chunk(one, 1.0)], 1.0)
    noted.note([chunk(two, 1.0)], 0.8)
    noted.note([chunk(one, 1.0)], 0.8)
    assert said() == 1


def test_a_stream_that_has_ended_is_forgotten(said: Any) -> None:
    noted, task = Pace(RATE), new_task()
    noted.note([chunk(task, 1.0), Done(task, None)], 1.0)
    noted.forget(task)
    noted.note([], 10.0)
    noted.note([chunk(task, 1.0)], 1.0)
    assert said() == 0
