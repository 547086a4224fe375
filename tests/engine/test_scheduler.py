"""The scheduler: each utterance ends once, with the result of a single call; none starves, and nothing leaks."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barkfast.engine.results import AudioChunk, Done, Event, Failed
from barkfast.engine.scheduler import MOST_STEPS_BETWEEN, Scheduler
from barkfast.engine.shared import SharedScheduler
from barkfast.engine.utterance import Utterance
from barkfast.errors import EngineError, InputError, VoiceError
from barkfast.options import Request
from engine.fake_networks import LAYOUT, POISON, REFUSED, VOICE, FakeComponents, assert_same, speak_plainly

FOREVER = 20_000


def run(scheduler: Scheduler) -> list[Event]:
    """Run until the scheduler is idle. Returns: all events."""
    events = []
    for _ in range(FOREVER):
        if scheduler.idle:
            return events
        events += scheduler.round()
    raise AssertionError("it does not end")


def ends(events: list[Event]) -> list[Utterance]:
    """The utterances that ended, in order."""
    return [event.utterance for event in events if not isinstance(event, AudioChunk)]


def check(utterance: Utterance, events: list[Event]) -> None:
    """Assert that an utterance has one end, the expected one, and that its chunks are its audio."""
    own = [event for event in events if event.utterance is utterance]
    chunks = [event.audio for event in own if isinstance(event, AudioChunk)]
    (end,) = (event for event in own if not isinstance(event, AudioChunk))
    assert own[-1] is end
    text = utterance.request.text or ""
    if POISON in text or REFUSED in text:
        assert isinstance(end, Failed) and end.error is utterance.error
        return
    assert isinstance(end, Done)
    assert_same(end.result, speak_plainly(utterance.request))
    if utterance.streams:
        assert all(len(chunk) for chunk in chunks)
        np.testing.assert_array_equal(np.concatenate(chunks), end.result.audio)
    else:
        assert not chunks


texts = st.text("abcdefgh ", min_size=1, max_size=8).filter(str.strip)
requests = st.builds(
    lambda text, mark, full, mode, priority, deadline: Request(
        text + mark, VOICE if full else None, stream=mode, priority=priority, deadline=deadline
    ),
    texts,
    st.sampled_from(["", "", "", "", "", POISON, REFUSED]),
    st.booleans(),
    st.sampled_from(["off", "exact", "low_latency"]),
    st.integers(-2, 2),
    st.none() | st.floats(0, 10),
)
# Actions: add a request; cancel, park or resume the n-th one; run some rounds.
happenings = st.lists(
    st.one_of(
        requests.map(lambda request: ("add", request)),
        st.tuples(st.sampled_from(["cancel", "park", "resume"]), st.integers(0, 20)),
        st.integers(1, 120).map(lambda n: ("rounds", n)),
    ),
    max_size=25,
)


@settings(max_examples=80)
@given(happenings=happenings, n_slots=st.integers(1, 4), counted=st.booleans())
def test_any_course_of_things(happenings: list[tuple[str, object]], n_slots: int, counted: bool) -> None:
    components = FakeComponents(counter_based_rng=counted)
    with Scheduler(components, LAYOUT, n_slots=n_slots, clock=lambda: 0.0) as scheduler:
        utterances: list[Utterance] = []
        events: list[Event] = []
        for what, value in happenings:
            if what == "add":
                utterances.append(scheduler.add(value))
            elif what == "rounds":
                for _ in range(value):
                    events += scheduler.round()
            elif utterances:
                utterance = utterances[value % len(utterances)]
                getattr(scheduler, what)(utterance)
                assert what != "cancel" or utterance.ended
        for utterance in utterances:
            scheduler.resume(utterance)
        events += run(scheduler)
        assert len(scheduler) == 0
        for utterance in utterances:
            if utterance.cancelled:
                assert utterance not in ends(events)
            else:
                check(utterance, events)
        assert not any(decoder.active for decoder in components.decoders.values())
    assert components.free


def test_between_two_prompts_everybody_has_a_step() -> None:
    components = FakeComponents()
    with Scheduler(components, LAYOUT, n_slots=4) as scheduler:
        for text in "abcdefgh":
            scheduler.add(Request(text, VOICE))
        run(scheduler)
    assert components.log.count("admit") > 8
    work = [what for what in components.log if what != "refine"]
    assert ("admit", "admit") not in zip(work, work[1:], strict=False)


def test_no_window_waits_for_long_and_none_holds_up_the_steps() -> None:
    components = FakeComponents()
    with Scheduler(components, LAYOUT, n_slots=3) as scheduler:
        for text in "abcdefghij":
            scheduler.add(Request(text))
        run(scheduler)
    refines = [i for i, what in enumerate(components.log) if what == "refine"]
    assert len(refines) == 10
    for before, after in zip(refines, refines[1:], strict=False):
        between = components.log[before + 1 : after]
        # At the end no job is in a slot any more.
        assert "step" in between or "step" not in components.log[before:]


def test_a_slot_is_free_at_once_when_its_utterance_is_cancelled() -> None:
    components = FakeComponents()
    with Scheduler(components, LAYOUT, n_slots=1) as scheduler:
        first, second = scheduler.add(Request("first", VOICE)), scheduler.add(Request("second", VOICE))
        for _ in range(4):
            scheduler.round()
        ((job, *_),) = components.decoders["text"].active.values()
        scheduler.cancel(first)
        assert not components.decoders["text"].active
        scheduler.round()
        ((other, *_),) = components.decoders["text"].active.values()
        assert not np.array_equal(job.prompt, other.prompt)
        scheduler.cancel(first)
        events = run(scheduler)
        assert ends(events) == [second]
        scheduler.cancel(second)
    assert components.free


def test_a_stream_that_is_not_heard_yet_goes_first() -> None:
    with Scheduler(FakeComponents(), LAYOUT, n_slots=1) as scheduler:
        offline = [scheduler.add(Request(text)) for text in ("one", "two", "three")]
        for _ in range(3):
            scheduler.round()
        stream = scheduler.add(Request("stream", stream="exact"))
        order = ends(run(scheduler))
    # The utterance in the only slot retains it until it is done.
    assert order.index(stream) <= 1 and set(order) == {*offline, stream}


def test_a_sentence_spoken_ahead_goes_before_nobody_until_its_turn_comes() -> None:
    with Scheduler(FakeComponents(), LAYOUT, n_slots=1) as scheduler:
        scheduler.add(Request("busy"))
        scheduler.round()
        following = scheduler.add(Request("next", stream="exact"), prefetched=True)
        plain = scheduler.add(Request("plain", priority=1))
        first = scheduler.add(Request("first", stream="exact"))
        assert ends(run(scheduler))[1:] == [first, plain, following]
    with Scheduler(FakeComponents(), LAYOUT, n_slots=1) as scheduler:
        scheduler.add(Request("busy"))
        scheduler.round()
        plain = scheduler.add(Request("plain"))
        following = scheduler.add(Request("next", stream="exact"), prefetched=True)
        scheduler.round()
        following.prefetched = False
        assert ends(run(scheduler))[1:] == [following, plain]


def test_the_earliest_deadline_then_priority_then_arrival() -> None:
    with Scheduler(FakeComponents(), LAYOUT, n_slots=1, clock=lambda: 0.0) as scheduler:
        names = {
            scheduler.add(Request("last")): "last",
            scheduler.add(Request("high", priority=5)): "high",
            scheduler.add(Request("late", deadline=90.0)): "late",
            scheduler.add(Request("soon", deadline=10.0)): "soon",
        }
        order = [names[utterance] for utterance in ends(run(scheduler))]
    assert order == ["soon", "late", "high", "last"]


def test_nobody_starves_behind_a_stream_of_more_urgent_requests() -> None:
    with Scheduler(FakeComponents(), LAYOUT, n_slots=1) as scheduler:
        humble = scheduler.add(Request("humble", priority=-9))
        for i in range(FOREVER):
            while len(scheduler) < 4:
                scheduler.add(Request(f"urgent {i}", stream="low_latency", priority=9))
            if humble in ends(scheduler.round()):
                break
        assert humble.result is not None


def test_a_parked_utterance_stops_and_keeps_no_seat() -> None:
    components = FakeComponents()
    with Scheduler(components, LAYOUT, n_slots=1) as scheduler:
        parked, other = scheduler.add(Request("parked", VOICE)), scheduler.add(Request("other", VOICE))
        for _ in range(30):
            scheduler.round()
        scheduler.park(parked)
        assert not scheduler.idle
        assert ends(run(scheduler)) == [other]
        assert scheduler.idle and len(scheduler) == 1 and not parked.ended
        assert not any(decoder.active for decoder in components.decoders.values())
        scheduler.resume(parked)
        events = run(scheduler)
        check(parked, events)
        lonely = scheduler.add(Request("lonely"))
        scheduler.park(lonely)
        assert scheduler.idle
        scheduler.cancel(lonely)
        assert len(scheduler) == 0


def test_bad_requests_leave_the_others_alone() -> None:
    with Scheduler(FakeComponents(), LAYOUT, n_slots=2) as scheduler:
        good = [scheduler.add(Request("good")), scheduler.add(Request("better", VOICE))]
        with pytest.raises(VoiceError):
            scheduler.add(Request("bad", {"semantic_prompt": np.arange(3)}))
        with pytest.raises(InputError, match="300 tokens and 256 fit"):
            scheduler.add(Request("a" * 300, overflow="error"))
        bad = [scheduler.add(Request(mark)) for mark in (POISON, REFUSED)]
        events = run(scheduler)
        for utterance in good + bad:
            check(utterance, events)


@pytest.mark.parametrize("mode", ["off", "exact", "low_latency"])
@pytest.mark.parametrize("text", ["a text", POISON, REFUSED])
@pytest.mark.parametrize("rounds", [0, 40, FOREVER])
def test_what_has_ended_is_held_by_nobody(mode: str, text: str, rounds: int) -> None:
    with Scheduler(FakeComponents(), LAYOUT, n_slots=2) as scheduler:
        held = [weakref.ref(scheduler.add(Request(text, VOICE, stream=mode))) for _ in range(2)]
        for _ in range(rounds):
            if scheduler.idle:
                break
            scheduler.round()
        for ref in held:
            if utterance := ref():
                scheduler.cancel(utterance)
        del utterance
        gc.collect()
        assert [ref() for ref in held] == [None, None]


def test_streams_are_heard_while_they_are_spoken() -> None:
    """A low-latency stream with a voice has its first audio long before all coarse tokens are drawn."""
    text = next(t for t in map(str, range(1000)) if len(speak_plainly(Request(t, VOICE)).semantic) > 120)
    rounds = dict.fromkeys(("off", "exact", "low_latency"), 1)
    for mode in rounds:
        with Scheduler(FakeComponents(), LAYOUT, n_slots=1) as scheduler:
            scheduler.add(Request(text, VOICE, stream=mode))
            while not scheduler.round():
                rounds[mode] += 1
    assert rounds["low_latency"] < rounds["exact"] < rounds["off"]
    # 47 semantic tokens, 62 coarse tokens for 31 frames, a fine window and a piece of codec work.
    assert rounds["low_latency"] < 47 + 62 + 5


def test_where_the_stages_share_a_generator_they_keep_their_order() -> None:
    for counted, most in ((True, 2), (False, 1)):
        components, together = FakeComponents(counter_based_rng=counted), 0
        with Scheduler(components, LAYOUT, n_slots=1) as scheduler:
            scheduler.add(Request("a text", VOICE, stream="exact"))
            while not scheduler.idle:
                scheduler.round()
                together = max(together, sum(bool(decoder.active) for decoder in components.decoders.values()))
        assert together <= most


def test_one_scheduler_at_a_time_has_the_networks() -> None:
    components = FakeComponents()
    with SharedScheduler(components).open(1), pytest.raises(EngineError, match="at work"):
        SharedScheduler(components).open(1)
    scheduler = Scheduler(components, LAYOUT, n_slots=2)
    scheduler.add(Request("abc"))
    scheduler.round()
    scheduler.close()
    assert components.free


def test_what_is_fatal_is_raised_and_everything_can_be_closed() -> None:
    components = FakeComponents()
    with Scheduler(components, LAYOUT) as scheduler:
        scheduler.add(Request("abc"))
        scheduler.round()
        components.decoders["text"].failing = RuntimeError("CUDA error: the device is gone")
        with pytest.raises(RuntimeError, match="device is gone"):
            scheduler.round()
    assert components.free


# --- several sessions of one scheduler


def test_callers_see_their_own_utterances_only() -> None:
    components = FakeComponents()
    shared = SharedScheduler(components)
    with shared.open(2) as one, shared.open(2) as two:
        mine, theirs = one.add(Request("mine", stream="exact")), two.add(Request("theirs"))
        events: list[Event] = []
        while not one.idle:
            events += one.round()
        check(mine, events)
        assert shared.busy
        others: list[Event] = []
        while not two.idle:
            others += two.round()
        check(theirs, others)
    assert components.free and not shared.busy


def test_streams_side_by_side_in_one_thread() -> None:
    components = FakeComponents()
    shared = SharedScheduler(components)
    requests = [Request(text, VOICE, stream="exact") for text in ("one", "two", "three")]
    sessions = [shared.open(2) for _ in requests]
    streams = [session.stream(request) for session, request in zip(sessions, requests, strict=True)]
    received: list[list[np.ndarray]] = [[] for _ in streams]
    open_ = set(range(3))
    while open_:
        for i in sorted(open_):
            chunk = next(streams[i], None)
            if chunk is None:
                open_.remove(i)
            else:
                received[i].append(chunk)
    for chunks, request in zip(received, requests, strict=True):
        np.testing.assert_array_equal(np.concatenate(chunks), speak_plainly(request).audio)
    for session in sessions:
        session.close()
    assert components.free


def test_a_batch_keeps_its_order_and_its_errors() -> None:
    components = FakeComponents()
    texts = [f"text {i}" for i in range(11)] + [POISON, "last"]

    def make(text: str) -> Request:
        if text == "text 3":
            raise InputError("nothing of the kind")
        return Request(text)

    with SharedScheduler(components).open(3) as session:
        results = session.run((lambda text=text: make(text)) for text in texts)
    for text, result in zip(texts, results, strict=True):
        if text in ("text 3", POISON):
            assert isinstance(result, InputError | EngineError)
        else:
            assert_same(result, speak_plainly(Request(text)))
    assert components.free


def test_when_the_networks_fail_everybody_is_told() -> None:
    components = FakeComponents()
    shared = SharedScheduler(components)
    one, two = shared.open(2), shared.open(2)
    one.add(Request("one"))
    doomed = two.add(Request("two"))
    one.round()
    components.decoders["text"].failing = RuntimeError("CUDA error: the device is gone")
    with pytest.raises(RuntimeError, match="device is gone"):
        one.round()
    (event,) = two.round()
    assert isinstance(event, Failed) and event.utterance is doomed and "device is gone" in str(event.error)
    with pytest.raises(EngineError, match="begin anew"):
        two.add(Request("again"))
    one.close()
    two.close()
    assert components.free
    components.decoders["text"].failing = None
    with shared.open(1) as session:
        assert len(session.run([lambda: Request("again")])) == 1


def test_a_window_is_not_kept_waiting_by_those_ahead() -> None:
    """An utterance that is last in order gets its fine window within a bounded number of steps."""
    components = FakeComponents()
    texts = sorted(map(str, range(60)), key=lambda t: len(speak_plainly(Request(t)).semantic))
    with Scheduler(components, LAYOUT, n_slots=2) as scheduler:
        long = scheduler.add(Request(texts[-1], deadline=1.0))
        short = scheduler.add(Request(texts[0]))
        order = ends(run(scheduler))
    assert order == [short, long]
    assert MOST_STEPS_BETWEEN < 100


@pytest.mark.parametrize(("voice", "first"), [(VOICE, "stream"), (None, "offline")])
def test_a_stream_may_go_between_two_windows_that_share_no_cache(
    voice: dict[str, np.ndarray] | None, first: str
) -> None:
    """Without a voice each window continues the cache of the one before, so the slot is retained."""
    text = next(t for t in map(str, range(1000)) if len(speak_plainly(Request(t, voice)).semantic) > 120)
    components = FakeComponents()
    with Scheduler(components, LAYOUT, n_slots=1) as scheduler:
        names = {scheduler.add(Request(text, voice)): "offline"}
        while not components.decoders["coarse"].active:
            scheduler.round()
        names[scheduler.add(Request("now", VOICE, stream="low_latency"))] = "stream"
        events = run(scheduler)
    for utterance in names:
        check(utterance, events)
    assert names[ends(events)[0]] == first
