"""How many streams may start, and one warning when a stream is made more slowly than it plays."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from barkfast.config import Layout
from barkfast.engine import pace
from barkfast.engine.pace import Pace
from barkfast.engine.results import AudioChunk, Done
from barkfast.engine.utterance import Utterance

RATE, STEPS = 100, 150


@pytest.fixture(autouse=True)
def n_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """A function that counts the warnings so far."""
    pace.warn_of_pace.cache_clear()
    with caplog.at_level(logging.WARNING, "barkfast"):
        yield lambda: sum("more slowly than it plays" in record.message for record in caplog.records)
    pace.warn_of_pace.cache_clear()


def chunk(task: Utterance, seconds: float) -> AudioChunk:
    return AudioChunk(task, np.zeros(round(seconds * RATE), np.float32))


def new_task() -> Utterance:
    task = Utterance(None, Layout(), start=np.zeros((8, 1), np.int32))
    task.live = True
    return task


def test_what_comes_in_time_is_no_reason_to_say_anything(n_warnings: Any) -> None:
    noted, task = Pace(RATE, STEPS), new_task()
    # Nothing plays before the first chunk, however long that takes.
    noted.count_round([], 100.0)
    noted.count_round([chunk(task, 1.0)], 5.0)
    for _ in range(20):
        noted.count_round([chunk(task, 1.0)], 0.9)
    # Work may take as long as the buffered audio lasts, and a little longer.
    noted.count_round([], 3.0)
    noted.count_round([chunk(task, 1.0)], 0.4)
    assert n_warnings() == 0


def test_what_comes_late_is_said_once(n_warnings: Any) -> None:
    noted, task = Pace(RATE, STEPS), new_task()
    noted.count_round([chunk(task, 1.0)], 5.0)
    for _ in range(3):
        noted.count_round([], 0.9)
        noted.count_round([chunk(task, 1.0)], 0.9)
    assert n_warnings() == 1


def test_rounds_for_others_count(n_warnings: Any) -> None:
    noted, one, two = Pace(RATE, STEPS), new_task(), new_task()
    noted.count_round([chunk(one, 1.0)], 1.0)
    noted.count_round([chunk(two, 1.0)], 0.8)
    noted.count_round([chunk(one, 1.0)], 0.8)
    assert n_warnings() == 1


def test_a_stream_that_has_ended_is_forgotten(n_warnings: Any) -> None:
    noted, task = Pace(RATE, STEPS), new_task()
    noted.count_round([chunk(task, 1.0), Done(task, None)], 1.0)
    noted.forget(task)
    noted.count_round([], 10.0)
    noted.count_round([chunk(task, 1.0)], 1.0)
    assert n_warnings() == 0


def learn(own_s: float, step_s: float) -> Pace:
    """A Pace that measured one second of audio of one stream: seconds of its own work, and of each step."""
    noted = Pace(RATE, STEPS)
    task = new_task()
    noted.count_own(own_s)
    noted.count_step(1, step_s)
    noted.count_round([chunk(task, 1.0)], 0.0)
    noted.forget(task)
    return noted


def test_one_stream_may_always_be_served_and_a_second_not_before_something_is_known() -> None:
    noted = Pace(RATE, STEPS)
    assert noted.has_room(0) and not noted.has_room(1)
    noted.count_round([chunk(new_task(), 0.9)], 0.0)
    assert not noted.has_room(1)
    slow = learn(own_s=0.6, step_s=0.01)
    assert slow.has_room(0) and not slow.has_room(1)


def test_as_many_as_there_is_time_for() -> None:
    # n streams need n * 0.2 s of their own work and 150 steps; a step takes a quarter longer per further stream.
    noted = learn(own_s=0.2, step_s=0.001)
    assert [noted.has_room(n) for n in range(6)] == [True, True, True, False, False, False]
    # As measured, steps for two to four streams take half as long.
    for n in (2, 3, 4):
        noted.count_step(n, 0.0005)
    assert noted.has_room(3) and not noted.has_room(4)


def test_what_was_long_ago_counts_less() -> None:
    noted = learn(own_s=0.8, step_s=0.0)
    assert not noted.has_room(1)
    for _ in range(100):
        noted.count_own(0.1)
        noted.count_round([chunk(new_task(), 1.0)], 0.0)
    assert noted.has_room(6) and not noted.has_room(9)


def test_new_streams_begin_in_turn_while_others_have_sound_to_hear() -> None:
    noted, first = learn(own_s=0.1, step_s=0.0001), new_task()
    # A stream's first chunk takes 0.1 s of work, and plays for 0.25 s.
    noted.count_round([], 0.06, [first])
    noted.count_round([chunk(first, 0.25)], 0.04, [first])
    assert [noted.has_room(1 + n_new, n_new) for n_new in range(3)] == [True, True, False]
    noted.count_round([chunk(first, 1.0)], 0.0)
    # The newest stream would run out of audio before the third has its first chunk.
    assert [noted.has_room(1 + n_new, n_new) for n_new in range(3)] == [True, True, False]
    noted.count_round([], 1.2)
    assert not noted.has_room(1)
    # A parked stream does not count: its consumer has stopped.
    first.parked = True
    assert noted.has_room(1)


def test_the_sound_of_streams_that_are_not_live_says_nothing(n_warnings: Any) -> None:
    exact = new_task()
    exact.live = False
    noted = Pace(RATE, STEPS)
    noted.count_round([chunk(exact, 20.0)], 0.0)
    assert not noted.has_room(1)
    noted = learn(own_s=0.6, step_s=0.0)
    noted.count_round([chunk(exact, 20.0)], 0.0)
    assert not noted.has_room(1)
    # A late stream of any mode is warned about.
    noted.count_round([], 30.0)
    noted.count_round([chunk(exact, 1.0)], 0.0)
    assert n_warnings() == 1
