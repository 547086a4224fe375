"""Batches on the real engines: a request gets the same tokens single and batched."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barkfast import Bark, Generation
from barkfast.bench.workload import full_voice, vocabulary
from barkfast.engine.results import AudioChunk, Done, Failed
from barkfast.engine.scheduler import Scheduler
from barkfast.errors import EngineError, InputError, VoiceError
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.decoder import Step
from engine.fake_networks import FakeComponents
from engine.skips import require

TOKENS = ("semantic", "coarse", "fine")
# A fake fine network and codec, which take no time.
FAKE = FakeComponents()


def assert_same(generation: Generation, expected: Generation) -> None:
    """Assert equal tokens of all stages."""
    for name in TOKENS:
        np.testing.assert_array_equal(getattr(generation, name), getattr(expected, name), err_msg=name)


def short_voice(bark: Bark, n: int, seed: int) -> dict[str, np.ndarray]:
    """A voice of `n` semantic tokens."""
    full = full_voice(bark.layout, seed)
    frames = round(n * bark.layout.coarse_per_semantic / bark.layout.coarse.n_codebooks)
    return {key: array[..., : n if key == "semantic_prompt" else frames] for key, array in full.items()}


def make_requests(bark: Bark, count: int, longest_s: float = 0.8) -> list[dict[str, Any]]:
    """Requests that differ in length, voice, seed and sampling."""
    voices = [None, full_voice(bark.layout), short_voice(bark, 40, 2), short_voice(bark, 121, 3)]
    samplings: list[dict[str, Any]] = [{}, {"top_k": 40}, {"top_p": 0.9}, {"text_temp": 0, "fine_temp": 0}]
    return [
        {
            "text": "word " * (1 + i % 5),
            "voice": voices[i % 4],
            "seed": 100 + i,
            "max_duration_s": longest_s * (1 + i % 7) / 7,
            **samplings[i // 4 % 4],
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def bark() -> Iterator[Bark]:
    """The demo model on the cpu engine."""
    require("cpu")
    bark = Bark("random:demo", device="cpu", engine="cpu")
    yield bark
    assert isinstance(bark.components.network("coarse"), CpuDecoder), "an engine fell back"


@pytest.fixture(scope="module")
def requests(bark: Bark) -> list[dict[str, Any]]:
    return make_requests(bark, 32)


@pytest.fixture(scope="module")
def single(requests: list[dict[str, Any]]) -> list[Generation]:
    """The results of the requests one at a time, on decoders of one slot."""
    bark = Bark("random:demo", device="cpu", engine="cpu")
    return [bark.generate(**request) for request in requests]


@pytest.mark.parametrize("seed", [0, 1])
def test_requests_in_any_order_get_the_tokens_they_get_alone(
    bark: Bark, requests: list[dict[str, Any]], single: list[Generation], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(requests))
    results = bark.generate_batch([requests[i] for i in order])
    for i, result in zip(order, results, strict=True):
        assert_same(result, single[i])
        np.testing.assert_array_equal(result.audio, single[i].audio)
        assert set(result.timings) == {"semantic", "coarse", "fine", "codec"}


def test_streams_among_others_and_arrivals_over_time(
    bark: Bark, requests: list[dict[str, Any]], single: list[Generation]
) -> None:
    """Two thirds are streams, and requests arrive while others run. Exact chunks equal the offline samples."""
    random = np.random.default_rng(5)
    waiting = list(random.permutation(20))
    with bark.scheduler(5) as scheduler:
        numbers, received = {}, {}
        while waiting or not scheduler.idle:
            if waiting and random.random() < 0.05 or scheduler.idle:
                i = waiting.pop()
                mode = ("off", "exact", "low_latency")[i % 3]
                utterance = scheduler.add(bark.request(**requests[i], stream=mode))
                numbers[utterance], received[utterance] = i, []
            for event in scheduler.round():
                if isinstance(event, AudioChunk):
                    received[event.utterance].append(event.audio)
                    continue
                assert isinstance(event, Done)
                i, generation = numbers.pop(event.utterance), event.result
                if i % 3 == 2:
                    # Its fine codes differ from the offline ones.
                    np.testing.assert_array_equal(generation.semantic, single[i].semantic)
                    np.testing.assert_array_equal(generation.coarse, single[i].coarse)
                    assert generation.audio.shape == single[i].audio.shape
                else:
                    assert_same(generation, single[i])
                    np.testing.assert_array_equal(generation.audio, single[i].audio)
                if i % 3:
                    np.testing.assert_array_equal(np.concatenate(received[event.utterance]), generation.audio)
        assert not numbers


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_other_dtypes(dtype: str) -> None:
    require("cpu")
    bark = Bark("random:demo", device="cpu", engine="cpu", dtype=dtype)
    requests = make_requests(bark, 6, longest_s=0.4)
    expected = [bark.generate(**request) for request in requests]
    for result, same in zip(bark.generate_batch(requests), expected, strict=True):
        assert_same(result, same)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_the_torch_engine(dtype: str) -> None:
    bark = Bark("random:demo", device="cpu", engine="torch", dtype=dtype)
    # The last two have several coarse windows, each of which continues the cache of the one before.
    chained = [{"text": "Hi", "seed": seed, "max_duration_s": 1.0} for seed in (1, 2)]
    requests = make_requests(bark, 4, longest_s=0.5) + chained
    expected = [bark.generate(**request) for request in requests]
    for result, same in zip(bark.generate_batch(requests), expected, strict=True):
        assert_same(result, same)
    for mode in ("exact", "low_latency"):
        with bark.scheduler() as scheduler:
            utterance = scheduler.add(bark.request(**requests[1], stream=mode))
            while not utterance.ended:
                scheduler.round()
        assert utterance.result is not None
        np.testing.assert_array_equal(utterance.result.coarse, expected[1].coarse)


def test_on_the_cuda_engine() -> None:
    """Only the two decoders run on the cuda engine: without a GPU they are interpreted, which is slow."""
    require("cuda")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bark = Bark("random:demo", device=device, engine="cuda", dtype="float32")
    bark.components.models |= {"fine": FAKE.refiner, "codec": FAKE.codec}
    greedy = {"text_temp": 0, "waveform_temp": 0, "max_duration_s": 0.03}
    requests = [{"text": "Hi", **greedy}, {"text": "Hello there", "seed": 2, "max_duration_s": 0.06}]
    expected = [bark.generate(**request) for request in requests]
    assert bark.components.n_slots == 1
    for result, same in zip(bark.generate_batch(requests), expected, strict=True):
        assert_same(result, same)
    assert bark.components.n_slots == 2


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Bark:
    """The smallest model in Suno's layout."""
    require("cpu")
    tokenizer = vocabulary(tmp_path_factory.mktemp("tokenizer"))
    bark = Bark("random:nano", device="cpu", engine="cpu", tokenizer=tokenizer, n_slots=3)
    bark.load()
    return bark


@settings(max_examples=15)
@given(
    happenings=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 5)),
            st.tuples(st.just("cancel"), st.integers(0, 9)),
            st.tuples(st.just("rounds"), st.integers(1, 30)),
        ),
        max_size=12,
    )
)
def test_any_course_of_things(nano: Bark, happenings: list[tuple[str, int]]) -> None:
    def request(kind: int) -> dict[str, Any]:
        voice = full_voice(nano.layout) if kind % 2 else None
        return {"text": "Hi there", "voice": voice, "seed": kind, "max_duration_s": 0.1 + 0.1 * (kind % 3)}

    with Scheduler(nano.components, nano.layout, n_slots=3) as scheduler:
        kinds, ends = {}, {}
        for what, n in [*happenings, ("rounds", 4000)]:
            if what == "add":
                kinds[scheduler.add(nano.request(**request(n), stream="exact" if n > 2 else "off"))] = n
            elif what == "cancel" and kinds:
                scheduler.cancel(list(kinds)[n % len(kinds)])
            elif what == "rounds":
                for _ in range(n):
                    for event in scheduler.round():
                        if isinstance(event, Done):
                            assert ends.setdefault(event.utterance, event) is event
                        assert not isinstance(event, Failed)
        assert scheduler.idle
        for part in ("text", "coarse"):
            assert not nano.components.network(part).active
    for utterance, kind in kinds.items():
        assert (utterance in ends) != utterance.cancelled
        if utterance in ends:
            assert_same(ends[utterance].result, nano.generate(**request(kind)))


# --- calls


def test_texts_dicts_and_defaults(bark: Bark) -> None:
    expected = [
        bark.generate("one", seed=1, max_duration_s=0.2),
        bark.generate("two", seed=2, max_duration_s=0.3),
    ]
    results = bark.generate_batch(
        ["one", {"text": "two", "seed": 2, "max_duration_s": 0.3}], seed=1, max_duration_s=0.2
    )
    for result, same in zip(results, expected, strict=True):
        assert_same(result, same)
    assert bark.generate_batch([]) == []


def test_one_that_fails_fails_alone(bark: Bark) -> None:
    items: list[Any] = ["fine", {"text": " "}, {"text": "Hi", "voice": "nobody"}, {"text": "Hi", "tempo": 3}, 5, "too"]
    results = bark.generate_batch(items, keep_errors=True, seed=1, max_duration_s=0.2)
    assert [type(r) for r in results] == [Generation, InputError, VoiceError, InputError, InputError, Generation]
    assert "unknown arguments 'tempo'" in str(results[3])
    with pytest.raises(InputError, match="nothing to say"):
        bark.generate_batch(items, seed=1, max_duration_s=0.2)
    with pytest.raises(InputError, match="requests is a str"):
        bark.generate_batch("one text")


def test_a_poisoned_voice_fails_alone(bark: Bark, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coarse logits of one request are not finite."""
    decoder = bark.components.load("coarse")
    report = type(decoder)._report
    doomed: list[int] = []

    def poisoned(self: Any, slot: int, active: Any) -> Any:
        steps = report(self, slot, active)
        if self is decoder and not doomed:
            doomed.append(slot)
            active.done = True
            return [Step(slot, None, True, EngineError("the coarse network's logits are not finite"))]
        return steps

    monkeypatch.setattr(type(decoder), "_report", poisoned)
    results = bark.generate_batch(["one", "two", "three"], keep_errors=True, seed=1, max_duration_s=0.2)
    monkeypatch.undo()
    failed = [isinstance(result, EngineError) for result in results]
    assert sum(failed) == 1
    for text, result in zip(("one", "two", "three"), results, strict=True):
        if isinstance(result, Generation):
            assert_same(result, bark.generate(text, seed=1, max_duration_s=0.2))


def test_a_stream_gives_the_samples_of_generate(bark: Bark) -> None:
    options = {"seed": 4, "max_duration_s": 0.9}
    expected = bark.generate("Hello there", **options).audio
    chunks = list(bark.stream("Hello there", **options))
    assert len(chunks) > 1
    np.testing.assert_array_equal(np.concatenate(chunks), expected)
    low = np.concatenate(list(bark.stream("Hello there", mode="low_latency", **options)))
    assert low.shape == expected.shape and np.isfinite(low).all()


def test_streams_are_closed_with_their_iterators(bark: Bark) -> None:
    stream = bark.stream("Hello there", seed=4, max_duration_s=0.9)
    next(stream)
    with pytest.raises(EngineError, match="at work already"):
        bark.components.claim("a test")
    stream.close()
    bark.components.claim("a test")
    bark.components.release()
    with pytest.raises(InputError, match="mode is 'off'"):
        bark.stream("Hello", mode="off")
    with pytest.raises(InputError, match="nothing to say"):
        bark.stream(" ")


def test_generate_joins_a_stream_under_way(bark: Bark) -> None:
    options = {"seed": 4, "max_duration_s": 0.5}
    expected = bark.generate("Hello there", **options)
    received = []
    for chunk in bark.stream("Hello there", **options):
        received.append(chunk)
        assert_same(bark.generate("Hello there", **options), expected)
    np.testing.assert_array_equal(np.concatenate(received), expected.audio)


def test_callers_in_several_threads_share_the_networks(bark: Bark) -> None:
    options = [{"text": f"text {i}", "seed": i, "max_duration_s": 0.3} for i in range(6)]
    expected = [bark.generate(**asked).audio for asked in options]

    def speak(i: int) -> np.ndarray:
        if i % 2:
            return np.concatenate(list(bark.stream(**options[i])))
        return bark.generate_batch([options[i]])[0].audio

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(speak, range(6)))
    for result, same in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, same)


def test_without_seeds_a_batch_draws_as_calls_one_after_the_other(bark: Bark) -> None:
    """With counter-based random numbers each request draws one number, its seed, from torch's generator, in order."""
    torch.manual_seed(3)
    expected = [bark.generate(text, max_duration_s=0.1) for text in ("one", "two", "three")]
    torch.manual_seed(3)
    for result, same in zip(bark.generate_batch(["one", "two", "three"], max_duration_s=0.1), expected, strict=True):
        assert_same(result, same)


def test_slots_grow_with_the_batch_and_no_further() -> None:
    require("cpu")
    bark = Bark("random:demo", device="cpu", engine="cpu")
    bark.load()
    networks = [bark.components.network(part) for part in ("text", "coarse")]
    bark.generate_batch(["one", "two", "three"], seed=1, max_duration_s=0.05)
    assert [network.n_slots for network in networks] == [3, 3] and bark.components.n_slots == 3
    bark.generate_batch(["one"] * 12, seed=1, max_duration_s=0.05)
    assert [network.n_slots for network in networks] == [8, 8]
    assert networks == [bark.components.network(part) for part in ("text", "coarse")]
    bark.generate_batch(["one"], seed=1, max_duration_s=0.05)
    assert bark.components.n_slots == 8
    assert Bark("random:demo", device="cpu", engine="cpu", n_slots=2).components.load("coarse").n_slots == 2
    for n in (0, 65):
        with pytest.raises(InputError, match=f"n_slots is {n}; expected 1 to 64"):
            Bark("random:demo", device="cpu", n_slots=n)
        with pytest.raises(InputError, match=f"n_slots is {n}"):
            bark.components.grow(n)


def test_slots_do_not_change_under_a_job(bark: Bark) -> None:
    # With a second session a round draws one token; with a single one it could draw all, and end the job.
    with bark.scheduler() as scheduler, bark.scheduler():
        scheduler.add(bark.request("Hello", seed=1, max_duration_s=0.3))
        scheduler.round()
        with pytest.raises(EngineError, match="slots cannot change while it has jobs"):
            bark.components.network("text").resize(50)


def test_a_text_of_a_million_characters_harms_nobody(bark: Bark) -> None:
    million = "word " * 200_000
    requests = ["hello", {"text": million, "overflow": "error"}, {"text": million}, "a"]
    first, refused, cut, last = bark.generate_batch(requests, keep_errors=True, max_duration_s=0.1, seed=1)
    assert isinstance(refused, InputError) and "tokens" in str(refused)
    assert_same(cut, bark.generate("word " * 256, max_duration_s=0.1, seed=1))
    for text, generation in (("hello", first), ("a", last)):
        assert_same(generation, bark.generate(text, max_duration_s=0.1, seed=1))
    sounds = bark.generate_long(million, max_duration_s=0.1, seed=1)
    assert len(next(sounds))
    sounds.close()
