"""A failing request does not affect others: odd values, and errors in every kind of work for a request."""

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barkfast import Bark, Generation, Sampling, generation
from barkfast.engine.async_engine import Engine
from barkfast.engine.shared import SharedScheduler
from barkfast.errors import BarkfastError, EngineDead, EngineError, InputError
from barkfast.options import Request
from barkfast.runtime.torch_ import TorchDecoder
from engine.fake_networks import LAYOUT, FakeComponents, Tokenizer, assert_same, speak_plainly
from engine.skips import require

GOOD = {"text": "A good neighbour.", "seed": 5, "max_duration_s": 0.1}


class Odd:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no name")


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(),
    st.fractions(),
    st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**5000, 5.0, 0, -0.0, 1e-320, 1e308, True]),
    st.sampled_from([np.int8(3), np.uint64(2**64 - 1), np.float16(0.5), np.float64("nan"), np.bool_(True)]),
)
VALUES = st.one_of(
    NUMBERS,
    st.none(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.complex_numbers(),
    st.sampled_from(["auto", "0.2", "None", "exact", "error", "cut", "off", "v2/en_speaker_99", "x.pt"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([np.zeros(3), np.array(0.7), np.zeros((2, 2), np.int64), torch.tensor(0.7), torch.zeros(2)]),
    st.builds(Odd),
    st.just(object),
)
NAMES = st.sampled_from([name for name in Request.__dataclass_fields__ if name != "max_duration_s"] + ["volume"])
# An odd request: the arguments of GOOD, one or two of them replaced.
ODD = st.dictionaries(NAMES, VALUES, min_size=1, max_size=2).map(lambda odd: {**GOOD, **odd})


@pytest.fixture(scope="module", params=["torch", "cpu"])
def bark(request: pytest.FixtureRequest) -> Bark:
    require(request.param)
    model = Bark("random:demo", device="cpu", dtype="float32", engine=request.param, n_slots=2)
    model.load()
    played = FakeComponents()
    model.components.models |= {"fine": played.refiner, "codec": played.codec}
    return model


@pytest.fixture(scope="module")
def good(bark: Bark) -> Generation:
    return bark.generate(**GOOD)


def same(generation: Generation, expected: Generation) -> None:
    for name in ("semantic", "coarse"):
        np.testing.assert_array_equal(getattr(generation, name), getattr(expected, name))


@given(odd=st.lists(ODD, min_size=1, max_size=3))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_a_batch_harms_nobody(bark: Bark, good: Generation, odd: list[dict[str, Any]]) -> None:
    results = bark.generate_batch([GOOD, *odd, GOOD], keep_errors=True)
    same(results[0], good)
    same(results[-1], good)
    for result in results[1:-1]:
        assert isinstance(result, Generation | BarkfastError), repr(result)
    assert not bark.model.shared.busy


@given(odd=st.lists(ODD, min_size=1, max_size=3))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_an_engine_harms_nobody(bark: Bark, good: Generation, odd: list[dict[str, Any]]) -> None:
    async def serve() -> None:
        async with Engine(bark, n_slots=2) as engine:
            mine = asyncio.create_task(engine.generate(**GOOD))
            # An Engine has arguments of its own instead of these.
            names = ("stream", "deadline")
            others = [
                engine.generate(**{name: value for name, value in one.items() if name not in names}) for one in odd
            ]
            for result in await asyncio.gather(*others, return_exceptions=True):
                assert isinstance(result, Generation | BarkfastError | TypeError), repr(result)
            same(await mine, good)
            same(await engine.generate(**GOOD), good)

    asyncio.run(serve())


@pytest.mark.parametrize("value", [Odd(), object, 10**5000], ids=["odd", "object", "digits"])
@pytest.mark.parametrize("name", [name for name in Request.__dataclass_fields__ if name not in ("stream", "deadline")])
def test_what_cannot_be_written_is_refused_by_name(bark: Bark, name: str, value: object) -> None:
    if name in ("top_k", "priority") and value == 10**5000:
        pytest.skip("any whole number will do")
    with pytest.raises(BarkfastError, match=name):
        bark.request(**{**GOOD, name: value})


@pytest.mark.parametrize(
    "value", [Odd(), np.array(["exact", "plain"]), {}, 10**5000], ids=["odd", "array", "dict", "digits"]
)
@pytest.mark.parametrize("name", ["mode", "markup", "overflow"])
def test_a_stream_refuses_odd_words_by_name(bark: Bark, name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} is .* expected one of"):
        bark.stream("Hello.", **{name: value})


@given(name=NAMES, value=VALUES)
@settings(max_examples=300)
def test_a_request_takes_a_value_or_names_it(name: str, value: object) -> None:
    if name == "volume":
        return
    arguments = {"text": "Hello.", name: value}
    if name == "voice":
        # Voices are loaded by the model; see the test above.
        return
    try:
        request = Request(**arguments)
    except InputError as error:
        assert name in str(error) or "semantic tokens" in str(error)
        return
    taken = getattr(request, name)
    assert taken is None or type(taken) in (int, float, str) or name == "semantic"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", 2**64, "from -2\\*\\*63 to 2\\*\\*64 - 1"),
        ("min_eos_p", "0.2", "above 0 and up to 1"),
        ("min_eos_p", 0, "above 0 and up to 1"),
        ("min_eos_p", 1.5, "above 0 and up to 1"),
        ("top_p", 0, "above 0 and up to 1"),
        ("top_p", 1.01, "above 0 and up to 1"),
        ("top_k", 0, "at least 1"),
        ("top_k", 4.5, "at least 1"),
        ("text_temp", np.array(0.7), "0 \\(greedy\\) or a positive number"),
        ("max_duration_s", 0, "a positive number of seconds"),
        ("max_duration_s", -1, "a positive number of seconds"),
        ("max_duration_s", float("nan"), "a positive number of seconds"),
        ("max_duration_s", float("inf"), "a positive number of seconds"),
        ("waveform_temp", float("inf"), "0 \\(greedy\\)"),
    ],
)
def test_what_is_refused_is_refused_by_every_call(bark: Bark, name: str, value: Any, expected: str) -> None:
    arguments = {"text": "Hello there.", name: value}
    text = arguments.pop("text")
    calls: list[Callable[[], Any]] = [
        lambda: bark.generate(text, **arguments),
        lambda: bark.request(text, **arguments),
        lambda: bark.generate_batch([{"text": text, **arguments}]),
        lambda: list(bark.stream(text, **arguments)),
        lambda: list(bark.stream(text, each_sentence=False, **arguments)),
        lambda: list(bark.generate_long(text, **arguments)),
        lambda: list(bark.generate_script(f"A: {text}", {"A": None}, **arguments)),
    ]
    for call in calls:
        with pytest.raises(InputError, match=f"{name} is .*expected .*{expected}"):
            call()

    async def serve() -> None:
        async with Engine(bark) as engine:
            with pytest.raises(InputError, match=f"{name} is .*expected .*{expected}"):
                await engine.generate(text, **arguments)
            with pytest.raises(InputError, match=f"{name} is .*expected .*{expected}"):
                async for _ in engine.stream(text, **arguments):
                    pass

    asyncio.run(serve())


def test_stages_refuse_what_generate_refuses_and_suno_s_functions_do_not(
    bark: Bark, monkeypatch: pytest.MonkeyPatch
) -> None:
    semantic = np.arange(20, dtype=np.int64)
    for options in ({"min_eos_p": 1.5}, {"max_duration_s": 0}, {"sampling": Sampling(0.7, top_p=0)}):
        with pytest.raises(InputError, match="expected"):
            bark.generate_semantic("Hello.", seed=1, **options)
        if "min_eos_p" not in options:
            with pytest.raises(InputError, match="expected"):
                bark.generate_coarse(semantic, seed=1, **options)
    monkeypatch.setattr(generation, "current_bark", lambda: bark)
    quiet = {"seed": 1, "silent": True}
    assert len(generation.generate_text_semantic("Hello.", min_eos_p=1.5, max_gen_duration_s=0, top_p=0, **quiet)) == 1
    for odd in ({"temp": "0.7"}, {"top_k": "5"}, {"top_p": np.zeros(1)}, {"seed": 2**64}, {"min_eos_p": "0.2"}):
        with pytest.raises(InputError, match="expected"):
            generation.generate_text_semantic("Hello.", **{**quiet, **odd})


def test_numbers_of_every_kind_are_taken() -> None:
    plain = Request("Hello.", seed=7, text_temp=0.5, top_k=5, priority=2, deadline=3.0)
    odd = Request(
        "Hello.",
        seed=np.int64(7),
        text_temp=Decimal("0.5"),
        top_k=5.0,
        priority=np.int8(2),
        deadline=Fraction(3),
    )
    for name in ("seed", "text_temp", "top_k", "priority", "deadline"):
        assert getattr(odd, name) == getattr(plain, name) and type(getattr(odd, name)) is type(getattr(plain, name))


# --- errors in every kind of work for a request


def boom(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("boom")


def break_for(text: str, place: str, components: FakeComponents) -> None:
    """Make one kind of work, `place`, fail for one text; a fine or codec call fails the first time."""
    ids = np.array(Tokenizer().encode(text)) + LAYOUT.semantic.text_offset

    def mine(job: Any) -> bool:
        return bool((job.prompt[: len(ids)] == ids).all())

    decoder = components.decoders["text"]
    if place == "tokenizer":
        components.models["text"]["tokenizer"].encode = lambda given: (
            boom() if given == text else Tokenizer().encode(given)
        )
    elif place == "admission":
        admit = decoder.admit
        decoder.admit = lambda job: boom() if mine(job) else admit(job)
    elif place == "result":
        # The network returns a token that the next stage cannot use.
        step = decoder.step

        def odd_step(seconds: float = 0.0) -> list[Any]:
            return [
                type(one)(
                    one.slot, one.token if not mine(decoder.active[one.slot][0]) else "token", one.done, one.error
                )
                for one in step()
            ]

        decoder.step = odd_step
    else:
        network, name = {"fine": (components.refiner, "refine"), "codec": (components.codec, "decode")}[place]
        plain, calls = getattr(network, name), []

        def fail_first(*args: Any) -> Any:
            calls.append(args)
            return boom() if len(calls) == 1 else plain(*args)

        setattr(network, name, fail_first)


@pytest.mark.parametrize("place", ["tokenizer", "admission", "result", "fine", "codec"])
def test_what_fails_for_one_request_ends_that_one(place: str) -> None:
    components = FakeComponents(n_slots=3)
    texts = ["doomed", "good", "better"]
    break_for("doomed", place, components)
    with SharedScheduler(components).open(3) as session:
        results = session.run(lambda text=text: Request(text) for text in texts)
    failed = [result for result in results if isinstance(result, Exception)]
    assert len(failed) == 1 and isinstance(failed[0], RuntimeError)
    if place in ("tokenizer", "admission", "result"):
        assert results[0] is failed[0]
    for text, result in zip(texts, results, strict=True):
        if result is not failed[0]:
            assert_same(result, speak_plainly(Request(text)))
    assert components.free


def test_a_step_that_fails_ends_those_in_it_and_no_others() -> None:
    components = FakeComponents(n_slots=2)
    decoder = components.decoders["text"]
    with SharedScheduler(components).open(2) as session:
        tasks = [session.add(Request(text)) for text in ("one", "two", "three")]
        for _ in range(4):
            session.round()
        decoder.failing = ValueError("a bug")
        events = session.round()
        decoder.failing = None
        assert {event.utterance for event in events} == set(tasks[:2])
        assert all("ValueError: a bug" in str(event.error) for event in events)
        assert_same(session.wait(tasks[2]), speak_plainly(Request("three")))
    assert components.free


def test_a_torch_sequence_that_fails_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Bark("random:demo", device="cpu", dtype="float32", engine="torch")
    expected = model.generate(**GOOD)
    advance = TorchDecoder._advance

    def fail(self: TorchDecoder, slot: int, sequence: Any) -> Any:
        return boom() if sequence.job.random.seed == 666 else advance(self, slot, sequence)

    monkeypatch.setattr(TorchDecoder, "_advance", fail)
    good, doomed = model.generate_batch([GOOD, {**GOOD, "seed": 666}], keep_errors=True)
    same(good, expected)
    assert isinstance(doomed, EngineError) and "the semantic network failed: RuntimeError: boom" in str(doomed)


def test_a_lost_device_ends_the_engine_and_everybody_is_told_within_a_second(bark: Bark) -> None:
    network = bark.components.network("coarse")

    lost_at: list[float] = []

    def lose(seconds: float = 0.0) -> Any:
        lost_at.append(time.monotonic())
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async def serve() -> None:
        async with Engine(bark, n_slots=2) as engine:
            network.step = lose
            requests = [engine.generate(f"Text {i}.", seed=i, max_duration_s=0.1) for i in range(6)]
            results = await asyncio.gather(*requests, return_exceptions=True)
            waited = time.monotonic() - lost_at[0]
            assert all(isinstance(result, EngineDead) for result in results)
            assert all("illegal memory access" in str(result) for result in results)
            assert not engine.healthy
            assert waited < 1

    try:
        asyncio.run(serve())
    finally:
        del network.step
    for part in ("text", "coarse"):
        bark.components.load(part, force=True)


# --- earlier calls do not change later ones


def test_what_ran_before_changes_no_token(bark: Bark, good: Generation) -> None:
    bark.generate_batch(["One.", "Two.", "Three."] * 5, seed=1, max_duration_s=0.05)
    with bark.scheduler(12) as session:
        session.run(lambda i=i: bark.request(f"Text {i}.", seed=i, max_duration_s=0.05) for i in range(12))
    same(bark.generate(**GOOD), good)


def test_slots_beyond_those_that_draw_the_same_tokens_are_given_back(
    bark: Bark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU a decoder of more than 8 slots uses other kernels, so its slots shrink when its batch is done."""
    decoders = [bark.components.network(part) for part in ("text", "coarse")]
    for decoder in decoders:
        monkeypatch.setattr(type(decoder), "same_tokens_slots", 8)
    with bark.scheduler(12):
        assert [decoder.n_slots for decoder in decoders] == [12, 12]
    most = 2 if bark.components.network("text").engine == "torch" else 8
    assert [decoder.n_slots for decoder in decoders] == [most, most] and bark.components.n_slots == most


def test_the_torch_engine_keeps_no_caches_of_a_batch() -> None:
    for dtype, most in (("float32", 1), ("bfloat16", 1)):
        model = Bark("random:demo", device="cpu", dtype=dtype, engine="torch")
        model.load()
        played = FakeComponents()
        model.components.models |= {"fine": played.refiner, "codec": played.codec}
        model.generate_batch(["One.", "Two.", "Three.", "Four."], seed=1, max_duration_s=0.05)
        for part in ("text", "coarse"):
            assert len(model.components.network(part)._released) <= most
