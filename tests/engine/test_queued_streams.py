"""Low-latency streams that arrive together: only as many start as can be made as fast as they play."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from barkfast import Bark
from barkfast.engine.pace import TOLERATED_S
from barkfast.engine.results import AudioChunk, Done, Failed
from barkfast.engine.scheduler import Scheduler
from barkfast.engine.utterance import Utterance
from barkfast.options import Request
from engine.fake_networks import HOP, LAYOUT, VOICE, FakeComponents, assert_same, speak_plainly

# With this sample rate HOP samples play as long as one frame.
AUDIBLE = replace(LAYOUT, sample_rate=round(HOP * LAYOUT.coarse.rate_hz))
# Texts of more than two seconds.
TEXTS = [t for t in map(str, range(1000)) if len(speak_plainly(Request(t, VOICE)).semantic) > 110][:12]
# Seconds of each kind of work: a second of audio needs 150 coarse steps and about two fine windows.
QUICK = {"admit": 0.0005, "step": 0.0005, "refine": 0.001}
HALF = {"admit": 0.01, "step": 0.001, "refine": 0.1}
SLOW = {"admit": 0.01, "step": 0.01, "refine": 0.1}


class Log(list[str]):
    """A log whose clock advances by the cost of each entry."""

    def __init__(self, costs: dict[str, float]) -> None:
        super().__init__()
        self.costs, self.now_s = costs, 0.0

    def append(self, what: str) -> None:
        super().append(what)
        self.now_s += self.costs[what]


class Simulation:
    """Runs a scheduler on the clock of a Log; records the order of ends, and the longest wait of each consumer."""

    def __init__(self, costs: dict[str, float], n_slots: int = 12) -> None:
        self.log = Log(costs)
        components = FakeComponents(n_slots)
        components.log = self.log
        for decoder in components.decoders.values():
            decoder.log = self.log
        self.scheduler = Scheduler(components, AUDIBLE, n_slots=n_slots, clock=lambda: self.log.now_s)
        self.most_at_once, self.ends = 0, []
        self.lag: dict[Utterance, float] = {}
        self._plays_until: dict[Utterance, float] = {}

    def add(self, text: str, stream: Any = "low_latency", **options: Any) -> Utterance:
        return self.scheduler.add(Request(text, VOICE, stream=stream, **options))

    def round(self) -> None:
        for event in self.scheduler.round():
            task, now = event.utterance, self.log.now_s
            if not isinstance(event, AudioChunk):
                self.ends.append(task)
                continue
            until = self._plays_until.get(task, now)
            self.lag[task] = max(self.lag.get(task, 0.0), now - until)
            self._plays_until[task] = max(until, now) + len(event.audio) / AUDIBLE.sample_rate
        begun = [t for t in self.scheduler._live if t.live and t not in self.scheduler._queued]
        self.most_at_once = max(self.most_at_once, len(begun))

    def run(self) -> "Simulation":
        for _ in range(200_000):
            if self.scheduler.idle:
                return self
            self.round()
        raise AssertionError("it does not end")


@pytest.mark.parametrize(("costs", "least", "most"), [(QUICK, 8, 8), (HALF, 2, 4), (SLOW, 1, 1)])
def test_as_many_as_keep_up_are_served_at_once(costs: dict[str, float], least: int, most: int) -> None:
    simulation = Simulation(costs)
    streams = [simulation.add(text) for text in TEXTS[:8]]
    simulation.run()
    assert least <= simulation.most_at_once <= most
    assert set(simulation.ends) == set(streams)
    for stream in streams:
        assert_same_tokens(stream)
    if costs is not SLOW:
        assert max(simulation.lag.values()) <= TOLERATED_S
    else:
        assert simulation.ends == streams


def assert_same_tokens(stream: Utterance) -> None:
    """Assert all tokens but the fine codes, which differ in low-latency streams."""
    assert stream.result is not None
    expected = speak_plainly(stream.request)
    np.testing.assert_array_equal(stream.result.semantic, expected.semantic)
    np.testing.assert_array_equal(stream.result.coarse, expected.coarse)


def test_who_is_not_live_waits_for_no_one() -> None:
    simulation = Simulation(SLOW)
    simulation.add(TEXTS[0])
    simulation.round()
    plain, exact = simulation.add(TEXTS[1], "off"), simulation.add(TEXTS[2], "exact")
    last = simulation.add(TEXTS[3])
    simulation.run()
    assert simulation.ends.index(plain) < simulation.ends.index(last) > simulation.ends.index(exact)
    assert_same(plain.result, speak_plainly(plain.request))


@pytest.mark.parametrize("prefetched", [True, False], ids=["ahead of its turn", "when it is waited for"])
def test_what_continues_a_stream_is_not_another_stream(prefetched: bool) -> None:
    simulation = Simulation(SLOW)
    first, other = (simulation.add(text) for text in TEXTS[:2])
    following = simulation.scheduler.add(
        Request(TEXTS[2], VOICE, stream="low_latency"), prefetched=prefetched, continues_stream=True
    )
    simulation.round()
    assert simulation.scheduler._queued == [other]
    while not first.ended:
        simulation.round()
    following.prefetched = False
    simulation.run()
    assert simulation.ends.index(other) == 2


def test_a_reader_who_stops_leaves_the_room_to_others() -> None:
    simulation = Simulation(SLOW)
    stopped, other = simulation.add(TEXTS[0]), simulation.add(TEXTS[1])
    simulation.round()
    simulation.scheduler.park(stopped)
    simulation.run()
    assert simulation.ends == [other] and not stopped.ended
    simulation.scheduler.resume(stopped)
    simulation.run()
    assert simulation.ends == [other, stopped]


def test_who_leaves_the_line_is_gone() -> None:
    simulation = Simulation(SLOW)
    first, second, third = (simulation.add(text) for text in TEXTS[:3])
    simulation.round()
    simulation.scheduler.cancel(second)
    simulation.scheduler.cancel(first)
    simulation.run()
    assert simulation.ends == [third] and len(simulation.scheduler) == 0


def test_nobody_stands_in_line_for_ever() -> None:
    simulation = Simulation(SLOW)
    humble = simulation.add(TEXTS[0], priority=-9)
    for n in range(100_000):
        while len(simulation.scheduler) < 4:
            simulation.add(TEXTS[n % 12], priority=9)
        simulation.round()
        if humble.ended:
            break
    assert humble.result is not None


def test_what_fails_in_the_line_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(QUICK)
    good, bad = simulation.add(TEXTS[0]), simulation.add(TEXTS[1])

    def fail() -> None:
        raise ValueError("no work")

    monkeypatch.setattr(bad, "next_work", fail)
    events = []
    while not simulation.scheduler.idle:
        events += [e for e in simulation.scheduler.round() if not isinstance(e, AudioChunk)]
    assert {type(e): e.utterance for e in events} == {Done: good, Failed: bad}


def test_sentences_of_a_stream_in_one_thread_continue_it(bark: Bark, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Bark.stream` gives `continues_stream` as the asyncio engine does."""
    asked: list[Utterance] = []
    add = Scheduler.add

    def watch(scheduler: Scheduler, *args: Any, **in_stream: bool) -> Utterance:
        asked.append(add(scheduler, *args, **in_stream))
        return asked[-1]

    monkeypatch.setattr(Scheduler, "add", watch)
    assert list(bark.stream("One. Two. Three.", seed=1, max_duration_s=0.1, min_eos_p=None, mode="low_latency"))
    assert [utterance.continues_stream for utterance in asked] == [False, True, True]
