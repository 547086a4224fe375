"""The state of one request: work in any order gives the result of the stages run one after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barkfast.engine.utterance import FIRST_FRAMES, FRAMES, Decode, Synthesize, Utterance, Work
from barkfast.errors import InputError, VoiceError
from barkfast.options import Request
from engine.fake_networks import (
    HOP,
    LAYOUT,
    VOICE,
    FakeCodecStream,
    assert_same,
    do,
    fake_tokens,
    speak_plainly,
    text_ids,
)


def begin(request: Request, overlap: bool = False) -> Utterance:
    return Utterance(request, LAYOUT, None if request.text is None else text_ids(request), overlap=overlap)


def finish(utterance: Utterance) -> list[Work]:
    """Do all work of an utterance. Returns: the work done."""
    stream, done = FakeCodecStream(), []
    while (work := utterance.next_work()) is not None:
        do(utterance, work, stream)
        done.append(work)
    assert utterance.ended
    return done


@pytest.mark.parametrize("voice", [None, VOICE], ids=["no voice", "full voice"])
@pytest.mark.parametrize("mode", ["off", "exact", "low_latency"])
@pytest.mark.parametrize("overlap", [False, True])
def test_every_mode_gives_what_the_stages_give(voice: dict[str, np.ndarray] | None, mode: str, overlap: bool) -> None:
    request = Request("Hello world", voice, stream=mode)
    utterance = begin(request, overlap)
    work = finish(utterance)
    assert utterance.result is not None
    # The fake fine network looks at one frame at a time, so low latency gives the same codes here.
    assert_same(utterance.result, speak_plainly(request))
    assert utterance.result.semantic.dtype == np.int64
    assert set(utterance.result.timings) == {"semantic", "coarse", "fine", "codec"}
    pieces = [w for w in work if isinstance(w, Synthesize)]
    assert [p.last for p in pieces] == [False] * (len(pieces) - 1) + [True]
    if mode == "off":
        assert len(pieces) == 1 and pieces[0].whole
    else:
        assert pieces[0].codes.shape[1] <= FIRST_FRAMES
        assert max(p.codes.shape[1] for p in pieces) <= FRAMES


@settings(max_examples=60)
@given(
    text=st.text("abcdefgh ", min_size=1, max_size=12).filter(str.strip),
    mode=st.sampled_from(["exact", "low_latency"]),
    full=st.booleans(),
    choices=st.lists(st.integers(0, 5), max_size=400),
)
def test_work_under_way_together_in_any_order(text: str, mode: str, full: bool, choices: list[int]) -> None:
    """Decodes advance token by token in random order, with fine windows and codec work in between."""
    request = Request(text, VOICE if full else None, stream=mode)
    utterance, stream = begin(request, overlap=True), FakeCodecStream()
    under_way: list[tuple[Decode, list[int]]] = []
    other_work: list[Work] = []
    remaining = iter(choices)
    while not utterance.ended:
        while (work := utterance.next_work()) is not None:
            if isinstance(work, Decode):
                utterance.begin(work)
                under_way.append((work, fake_tokens(work.job)))
            else:
                other_work.append(work)
        assert len({work.stage for work, _ in under_way}) == len(under_way) <= 2
        choice = next(remaining, 0)
        if other_work and (choice % 2 or not under_way):
            do(utterance, other_work.pop(0), stream)
            continue
        entry = under_way[choice // 2 % len(under_way)]
        work, tokens = entry
        if tokens:
            utterance.take_token(work, tokens.pop(0))
        if not tokens:
            under_way.remove(entry)
            utterance.take(work)
    assert utterance.result is not None
    assert_same(utterance.result, speak_plainly(request))


def first_coarse_job(utterance: Utterance) -> int:
    """How many semantic tokens the first coarse window waits for: all, where stages do not overlap."""
    semantic = utterance.next_work()
    assert isinstance(semantic, Decode) and semantic.stage == "semantic"
    utterance.begin(semantic)
    tokens = fake_tokens(semantic.job)
    for n, token in enumerate(tokens, start=1):
        utterance.take_token(semantic, token)
        if utterance.next_work() is not None:
            return n
    return len(tokens)


def test_coarse_begins_early_only_where_it_may() -> None:
    text = next(t for t in map(str, range(1000)) if len(speak_plainly(Request(t, VOICE)).semantic) > 100)
    plain, stream = Request(text, VOICE), Request(text, VOICE, stream="exact")
    n_all = len(speak_plainly(plain).semantic)
    assert first_coarse_job(begin(stream, overlap=True)) == 47
    assert first_coarse_job(begin(stream, overlap=False)) == n_all
    assert first_coarse_job(begin(plain, overlap=True)) == n_all


def test_low_latency_is_heard_before_the_coarse_stage_ends() -> None:
    text = next(t for t in map(str, range(1000)) if len(speak_plainly(Request(t, VOICE)).semantic) > 100)
    utterance, stream = begin(Request(text, VOICE, stream="low_latency"), overlap=True), FakeCodecStream()
    while utterance.awaits_first_audio:
        work = utterance.next_work()
        assert work is not None
        do(utterance, work, stream)
    assert utterance.n_samples >= HOP * 7
    assert utterance.has_more("coarse") and not utterance.ended


def test_semantic_tokens_can_be_given() -> None:
    plain = speak_plainly(Request("Hello"))
    utterance = begin(Request(None, semantic=plain.semantic))
    work = finish(utterance)
    assert utterance.result is not None
    assert_same(utterance.result, plain)
    assert not [w for w in work if w.stage == "semantic"]


def test_due_follows_the_deadline_and_what_can_be_heard() -> None:
    now = 100.0
    utterance = Utterance(
        Request("abc", stream="exact", deadline=500.0), LAYOUT, text_ids(Request("abc")), clock=lambda: now
    )
    assert utterance.due == 500.0 and utterance.awaits_first_audio
    stream = FakeCodecStream()
    while utterance.awaits_first_audio:
        work = utterance.next_work()
        assert work is not None
        do(utterance, work, stream)
    assert utterance.due == pytest.approx(100.0 + utterance.n_samples / LAYOUT.sample_rate)
    assert Utterance(Request("abc"), LAYOUT, text_ids(Request("abc"))).due == float("inf")


def test_nothing_is_asked_for_after_the_end() -> None:
    for end in (lambda u: u.cancel(), lambda u: u.fail(InputError("no"))):
        utterance = begin(Request("abc"))
        end(utterance)
        assert utterance.ended and utterance.next_work() is None and not utterance.has_more("coarse")


def test_an_utterance_without_a_token_fails_as_generate_does() -> None:
    utterance = begin(Request("abc"))
    work = utterance.next_work()
    assert work is not None
    utterance.begin(work)
    with pytest.raises(InputError, match="semantic tokens are empty: the stage before produced nothing"):
        utterance.take(work)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": " "}, "nothing to say"),
        ({"text": None}, "text is None"),
        ({"text": "a", "semantic": np.arange(4)}, "expected one of them"),
        ({"text": "a", "overflow": "wrap"}, "overflow is 'wrap'"),
        ({"text": "a", "stream": "fast"}, "stream is 'fast'"),
        ({"text": "a", "priority": "high"}, "priority is 'high'"),
        ({"text": "a", "deadline": float("nan")}, "deadline is nan"),
        ({"text": "a", "deadline": "soon"}, "deadline is 'soon'"),
        ({"text": "a", "seed": "lucky"}, "seed is 'lucky'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_requests_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Request(**fields)


def test_requests_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(VoiceError, match="has no coarse_prompt"):
        begin(Request("abc", {"semantic_prompt": np.arange(9)}))
    with pytest.raises(InputError, match="0 to 10000; expected 0 to 9999"):
        begin(Request(None, semantic=np.array([0, 10_000])))


def test_a_request_can_be_used_again() -> None:
    request = Request("abc", text_temp=0.9, seed=3)
    first, second = begin(request), begin(request)
    finish(first)
    finish(second)
    assert first.result is not None and second.result is not None
    assert_same(first.result, second.result)
