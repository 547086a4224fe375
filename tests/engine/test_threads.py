"""Public calls from several threads at once, in every combination: each returns the result of a single call."""

import asyncio
import gc
import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barkfast import Bark, Sampling, api, generation
from barkfast.engine.async_engine import Engine
from barkfast.engine.shared import SharedScheduler
from barkfast.errors import EngineError, InputError
from barkfast.locks import FairLock
from barkfast.options import Request
from barkfast.runtime import select
from engine.fake_networks import LAYOUT, FakeComponents
from engine.skips import require

SHORT = {"max_duration_s": 0.1}
SEMANTIC = np.arange(20, dtype=np.int64) * 7 % LAYOUT.semantic.vocab_size
Call = Callable[[Bark, int], Any]


def save_and_read(bark: Bark, seed: int, folder: Path) -> np.ndarray:
    path = folder / f"{threading.get_ident()}-{seed}.npz"
    bark.save_voice(path, bark.generate("A voice.", seed=seed, max_duration_s=1.0))
    return np.load(path)["fine_prompt"]


# The public calls of a model, each with a seed.
CALLS: dict[str, Call] = {
    "generate": lambda bark, seed: bark.generate("Hello there.", seed=seed, **SHORT).audio,
    "batch": lambda bark, seed: np.concatenate(
        [one.audio for one in bark.generate_batch(["One.", "Two."], seed=seed, **SHORT)]
    ),
    "stream": lambda bark, seed: np.concatenate(list(bark.stream("Hello. There.", seed=seed, **SHORT))),
    "low latency": lambda bark, seed: np.concatenate(
        list(bark.stream("Hello there.", mode="low_latency", seed=seed, **SHORT))
    ),
    "long": lambda bark, seed: np.concatenate(list(bark.generate_long("A long text. Of two.", seed=seed, **SHORT))),
    "script": lambda bark, seed: np.concatenate(
        list(bark.generate_script("A: Hello.\nB: Hi.", {"A": None, "B": None}, seed=seed, **SHORT))
    ),
    "semantic": lambda bark, seed: bark.generate_semantic("Hello there.", seed=seed, **SHORT),
    "coarse": lambda bark, seed: bark.generate_coarse(SEMANTIC, seed=seed),
    "fine": lambda bark, seed: bark.generate_fine(bark.generate_coarse(SEMANTIC[:9], seed=seed), seed=seed),
    "decode": lambda bark, seed: bark.decode(np.full((8, 20), seed, np.int32)),
}


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Start all calls at the same moment, each in its own thread. Returns: their results."""
    gate = threading.Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Any:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


ENGINES = ["torch", "cpu"]


def make_bark(engine: str) -> Bark:
    require(engine)
    return Bark("random:demo", device="cpu", dtype="float32", engine=engine)


@pytest.fixture(scope="module", params=ENGINES)
def bark(request: pytest.FixtureRequest) -> Bark:
    """A model with a fake fine network and codec, which take no time."""
    model = make_bark(request.param)
    model.load()
    played = FakeComponents()
    model.components.models |= {"fine": played.refiner, "codec": played.codec}
    return model


@pytest.fixture(scope="module")
def single(bark: Bark) -> dict[str, np.ndarray]:
    """The result of each call while no other runs."""
    return {name: call(bark, 3) for name, call in CALLS.items()}


@pytest.mark.sweep(30)
@pytest.mark.parametrize("pair", [*itertools.combinations_with_replacement(CALLS, 2)], ids="-".join)
def test_two_threads_get_what_each_gets_alone(bark: Bark, single: dict[str, np.ndarray], pair: tuple[str, str]) -> None:
    results = in_threads(*(lambda name=name: CALLS[name](bark, 3) for name in pair))
    for name, result in zip(pair, results, strict=True):
        np.testing.assert_array_equal(result, single[name], err_msg=name)
    assert not bark.model.shared.busy


@pytest.mark.parametrize("engine", ENGINES)
def test_four_threads_of_everything_and_two_models(engine: str) -> None:
    """Two models share the engine's threads, and whatever else a process has once."""
    models = [make_bark(engine) for _ in range(2)]
    names = [*CALLS]
    expected = {name: CALLS[name](models[0], 3) for name in names}

    def work(model: Bark, first: int) -> None:
        for name in names[first:] + names[:first]:
            np.testing.assert_array_equal(CALLS[name](model, 3), expected[name], err_msg=name)

    in_threads(*(lambda i=i: work(models[i == 3], 3 * i) for i in range(4)))


def test_the_cuda_engine_is_shared_too() -> None:
    """In Triton's interpreter, so with few tokens."""
    require("cuda")
    model = Bark("random:demo", device="cpu", dtype="float32", engine="cuda")
    seeds = (3, 4)
    expected = [model.generate_coarse(SEMANTIC[:2], seed=seed) for seed in seeds]
    results = in_threads(*(lambda seed=seed: model.generate_coarse(SEMANTIC[:2], seed=seed) for seed in seeds))
    for result, same in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, same)


def test_saving_voices_from_threads(bark: Bark, tmp_path: Path) -> None:
    expected = save_and_read(bark, 5, tmp_path)
    for result in in_threads(*(lambda: save_and_read(bark, 5, tmp_path) for _ in range(3))):
        np.testing.assert_array_equal(result, expected)


# --- loading and dropping


def test_the_first_call_builds_each_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def count(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        built.append(name)
        time.sleep(0.01)
        return original(*args, **kwargs)

    for name in ("build_decoder", "build_refiner", "build_codec"):
        original = getattr(select, name)
        monkeypatch.setattr(select, name, partial(count, name, original))
    model = Bark("random:demo", device="cpu", dtype="float32", engine="torch")
    first, *others = in_threads(*(lambda: CALLS["generate"](model, 3) for _ in range(3)), model.load)
    np.testing.assert_array_equal(first, others[0])
    assert sorted(built) == ["build_codec", "build_decoder", "build_decoder", "build_refiner"]


def test_the_functions_of_bark_share_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use makes one model, in whichever thread; dropping its networks meanwhile changes no result."""
    made: list[Bark] = []

    class Counted(Bark):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            time.sleep(0.01)
            super().__init__("random:demo", device="cpu", engine="torch")

    monkeypatch.setattr(generation, "Bark", Counted)
    generation.forget_default_bark()
    quiet = {"seed": 3, "silent": True}
    semantic = partial(generation.generate_text_semantic, "Hello.", max_gen_duration_s=0.1, **quiet)
    waveform = partial(api.semantic_to_waveform, SEMANTIC[:9], **quiet)
    try:
        first, sound, _ = in_threads(semantic, waveform, generation.preload_models)
        assert len(made) == 1
        again, same_sound, _, _ = in_threads(semantic, waveform, generation.clean_models, generation.preload_models)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(sound, same_sound)
        np.testing.assert_array_equal(first, semantic())
        assert len(made) == 1
    finally:
        generation.forget_default_bark()


def test_models_may_be_dropped_and_loaded_while_others_speak() -> None:
    model = make_bark("torch")
    names = ("generate", "semantic", "coarse")
    expected = {name: CALLS[name](model, 3) for name in names}

    def clean() -> None:
        for part in ("text", "coarse", None, "text", "codec", None):
            time.sleep(0.02)
            model.components.drop(part)
            model.components.load(part or "text", force=True)

    def speak(name: str) -> None:
        for _ in range(2):
            np.testing.assert_array_equal(CALLS[name](model, 3), expected[name], err_msg=name)

    in_threads(clean, *(lambda name=name: speak(name) for name in names))


def test_a_half_read_stream_goes_on_with_the_networks_that_it_began_with() -> None:
    model = make_bark("torch")
    single = {name: CALLS[name](model, 3) for name in ("generate", "stream")}
    stream = model.stream("Hello. There.", seed=3, **SHORT)
    chunks = [next(stream)]
    model.components.drop()
    np.testing.assert_array_equal(CALLS["generate"](model, 3), single["generate"])
    np.testing.assert_array_equal(np.concatenate([*chunks, *stream]), single["stream"])


# --- fairness


def test_the_lock_is_first_come_first_served() -> None:
    lock, order = FairLock(), []
    lock.acquire()
    threads = []
    for i in range(5):
        thread = threading.Thread(target=lambda i=i: (lock.acquire(), order.append(i), lock.release()))
        thread.start()
        threads.append(thread)
        while lock.n_waiting <= i:
            time.sleep(0.001)
    assert not lock.acquire(blocking=False)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(5)) and not lock.held


def test_who_joins_waits_for_a_round_and_not_for_a_call() -> None:
    """Threads that run rounds without a pause do not starve a new session."""
    components = FakeComponents(n_slots=4)
    step = 0.03
    for decoder in components.decoders.values():
        decoder.step = lambda seconds=0.0, plain=decoder.step: (time.sleep(step), plain())[1]
    shared, stop = SharedScheduler(components), threading.Event()

    def speak() -> None:
        with shared.open(4) as session:
            while not stop.is_set():
                if not len(session):
                    session.add(Request("some text"))
                session.round()

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(speak) for _ in range(2)]
        time.sleep(5 * step)
        waits = []
        for _ in range(10):
            start = time.monotonic()
            with shared.open(4) as session:
                session.add(Request("mine"))
            waits.append(time.monotonic() - start)
        stop.set()
        for other in others:
            other.result()
    # A wait is a round of each other thread, with a margin for a busy machine; an unfair lock takes dozens.
    assert sorted(waits)[5] < 12 * step


def test_one_stream_read_by_two_threads_loses_nothing(bark: Bark, single: dict[str, Any]) -> None:
    stream = bark.stream("Hello. There.", seed=3, **SHORT)
    read: list[np.ndarray] = []
    in_threads(*(lambda: [read.append(chunk) for chunk in stream] for _ in range(2)))
    assert sum(map(len, read)) == len(single["stream"])


# --- dropped streams, engines, errors, forks


def test_a_dropped_stream_frees_the_model_and_says_so(bark: Bark) -> None:
    for make in (
        lambda: bark.stream("Hello. There.", seed=3, **SHORT),
        lambda: bark.stream("Hello.", seed=3, each_sentence=False, **SHORT),
        lambda: bark.generate_long("Hello. There.", seed=3, each_sentence=True, **SHORT),
        lambda: bark.generate_script("A: Hello.\nB: Hi.", {"A": None, "B": None}, seed=3, at_once=1, **SHORT),
    ):
        stream = make()
        next(stream)
        assert bark.model.shared.busy
        with pytest.warns(ResourceWarning, match="dropped half-read"):
            del stream
            gc.collect()
        assert not bark.model.shared.busy
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with make() as closed:
                next(closed)
            assert not bark.model.shared.busy
            del closed
            # A stream that was never read holds nothing.
            make()
            gc.collect()


def test_a_stream_may_be_dropped_in_the_middle_of_somebody_elses_round() -> None:
    """A finalizer may run in any thread at any time, even during that thread's own round."""
    components = FakeComponents(n_slots=2)
    shared = SharedScheduler(components)
    with shared.open(2) as session:
        dropped = shared.open(2)
        doomed = dropped.add(Request("dropped"))
        mine = session.add(Request("mine"))
        plain = components.decoders["text"].step
        components.decoders["text"].step = lambda seconds=0.0: (dropped.close(), plain())[1]
        result = session.wait(mine)
        assert doomed.cancelled and len(result.audio)
    assert components.free


def test_an_engine_has_the_model_for_itself(bark: Bark) -> None:
    async def serve() -> None:
        async with Engine(bark, n_slots=2) as engine:
            for call in CALLS.values():
                with pytest.raises(EngineError, match="at work already, for an Engine"):
                    call(bark, 3)
            assert len((await engine.generate("Hello.", seed=3, **SHORT)).audio)
        with bark.stream("Hello. There.", seed=3, **SHORT) as stream:
            next(stream)
            with pytest.raises(EngineError, match="at work already, for calls in other threads, or a stream"):
                await Engine(bark).start()

    asyncio.run(serve())


def test_an_error_is_the_callers_own(bark: Bark, single: dict[str, Any]) -> None:
    def fail() -> None:
        for _ in range(5):
            with pytest.raises(InputError):
                bark.generate_coarse(SEMANTIC, seed=3, max_duration_s=1e-9)
            with pytest.raises(InputError):
                bark.generate("", seed=3)

    results = in_threads(fail, lambda: CALLS["generate"](bark, 3), fail, lambda: CALLS["coarse"](bark, 3))
    np.testing.assert_array_equal(results[1], single["generate"])
    np.testing.assert_array_equal(results[3], single["coarse"])


def in_a_child(work: Callable[[], bool]) -> int:
    """The exit status of a forked child: 0 if `work` returns True there. Fails the test if the child hangs."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_busy_process_speaks(bark: Bark, single: dict[str, Any]) -> None:
    """Whatever locks other threads held at the fork, the child can generate; it refuses the parent's streams."""
    stream = bark.stream("Hello. There.", seed=3, **SHORT)
    next(stream)
    stop = threading.Event()
    speaking = threading.Thread(target=lambda: [CALLS["coarse"](bark, 3) for _ in iter(stop.is_set, True)])
    speaking.start()

    def speak() -> bool:
        with pytest.raises(EngineError, match="before the process was forked"):
            list(stream)
        return np.array_equal(CALLS["semantic"](bark, 3), single["semantic"])

    try:
        for _ in range(2):
            time.sleep(0.02)
            assert in_a_child(speak) == 0
    finally:
        stop.set()
        speaking.join()
        stream.close()


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_an_idle_process_has_its_networks(bark: Bark, single: dict[str, Any]) -> None:
    networks = dict(bark.components.models)

    def speak() -> bool:
        same = np.array_equal(CALLS["generate"](bark, 3), single["generate"])
        return same and all(bark.components.models[part] is networks[part] for part in networks)

    assert in_a_child(speak) == 0


def test_a_child_is_told_that_a_gpu_cannot_be_used() -> None:
    model = Bark("random:demo", device="cpu")
    model.components.device = "cuda"
    model.components.after_fork(in_use=False)
    with pytest.raises(EngineError, match="forked from one that had a model on a GPU.*spawn"):
        model.components.load("text")


def test_stage_functions_draw_as_they_did(bark: Bark) -> None:
    """A stage called by itself returns the tokens that it has within `generate`."""
    whole = bark.generate("Hello there.", seed=3, text_temp=0, waveform_temp=0, fine_temp=0, **SHORT)
    semantic = bark.generate_semantic("Hello there.", sampling=Sampling(0), **SHORT)
    coarse = bark.generate_coarse(semantic, sampling=Sampling(0))
    fine = bark.generate_fine(coarse, sampling=Sampling(0))
    for mine, same in ((semantic, whole.semantic), (coarse, whole.coarse), (fine, whole.fine)):
        np.testing.assert_array_equal(mine, same)
    np.testing.assert_array_equal(bark.decode(fine), whole.audio)
