"""The asyncio engine: queue, streams, deadlines, shutdown; with a scripted scheduler, then with a model."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

from barkfast import Bark, InputError, VoiceError
from barkfast.engine import async_engine as module
from barkfast.engine.async_engine import Engine
from barkfast.engine.results import percentiles
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineDead, EngineError, QueueFull
from barkfast.runtime.cpu.codec import CpuCodec
from engine.scripted import CHUNK, ScriptedBark, ScriptedScheduler

FOREVER = 10**9


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedBark:
    monkeypatch.setattr(module, "Scheduler", ScriptedScheduler)
    return ScriptedBark()


@asynccontextmanager
async def running(bark: Any, **options: Any) -> AsyncIterator[Engine]:
    """An engine; asserts that it leaves no task and no thread behind."""
    before = asyncio.all_tasks()
    async with Engine(bark, **options) as engine:
        yield engine
    assert asyncio.all_tasks() == before
    assert not [t for t in threading.enumerate() if t.name == "barkfast-engine"]


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds, instead of for a fixed time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.001)


async def read_all(stream: Any) -> np.ndarray:
    return np.concatenate([chunk async for chunk in stream])


def test_a_request_is_answered_from_a_thread_of_its_own(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            generation = await engine.generate("hello", max_duration_s=3)
            assert len(generation.audio) == 3 * CHUNK
            stats = engine.stats()
        assert (stats.accepted, stats.done, stats.held, stats.failed) == (1, 1, 0, 0)
        assert stats.audio_s == pytest.approx(3 * CHUNK / 24_000)
        assert stats.healthy and stats.whole_s is not None and stats.first_chunk_s is None
        assert scripted.threads == {"barkfast-engine"} and scripted.readers == {"barkfast-reader"}
        assert scripted.scheduler.closed

    asyncio.run(main())


def test_chunks_come_in_order_and_the_whole_behind_them(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            stream = engine.stream("hello", max_duration_s=20)
            assert stream.generation is None
            audio = await read_all(stream)
            np.testing.assert_array_equal(audio, stream.generation.audio)
            assert [chunk async for chunk in stream] == []
            assert engine.stats().first_chunk_s is not None

    asyncio.run(main())


def test_a_full_queue_refuses_at_once_or_lets_wait(scripted: ScriptedBark) -> None:
    async def main() -> None:
        scripted.gate.clear()
        async with running(scripted, n_slots=1, queue_size=1) as engine:
            held = [asyncio.create_task(engine.generate("hello")) for _ in range(2)]
            await until(lambda: engine.stats().held == 2)
            start = time.monotonic()
            with pytest.raises(QueueFull, match="holds 2 requests"):
                await engine.generate("one too many")
            with pytest.raises(QueueFull):
                async with engine.stream("one too many"):
                    pass
            assert time.monotonic() - start < 1
            waiting = [asyncio.create_task(engine.generate("patient", wait=True)) for _ in range(3)]
            with pytest.raises(DeadlineExceeded, match="no place"):
                await engine.generate("patient for a while", wait=True, deadline_s=0.05)
            # A caller that stops waiting does not affect the others that wait.
            waiting[1].cancel()
            scripted.gate.set()
            done = await asyncio.gather(*held, *waiting, return_exceptions=True)
            assert [type(d).__name__ for d in done] == ["Generation"] * 3 + ["CancelledError", "Generation"]
            stats = engine.stats()
            assert (stats.accepted, stats.refused, stats.done, stats.held) == (4, 2, 4, 0)

    asyncio.run(main())


def test_a_cancelled_task_frees_its_slot_within_a_round(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=1, queue_size=0) as engine:
            task = asyncio.create_task(engine.generate("hello", max_duration_s=FOREVER))
            await until(lambda: scripted.rounds > 3)
            scripted.gate.clear()
            await asyncio.sleep(0.01)
            rounds = scripted.rounds
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            scripted.gate.set()
            await until(lambda: engine.stats().cancelled == 1)
            assert scripted.rounds - rounds <= 1 and not scripted.scheduler.live
            assert (await engine.generate("next", wait=True)).audio.size == CHUNK

    asyncio.run(main())


def close_it(stream: Any) -> Awaitable[None]:
    return stream.aclose()


async def leave_it(stream: Any) -> None:
    async with stream:
        pass


async def forget_it(stream: Any) -> None:
    """Do nothing: the caller drops its reference next."""


@pytest.mark.parametrize("way", [close_it, leave_it, forget_it])
def test_a_reader_who_goes_away_ends_the_request(scripted: ScriptedBark, way: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            stream = engine.stream("hello", max_duration_s=FOREVER)
            async for _ in stream:
                break
            await way(stream)
            if way is not forget_it:
                assert [chunk async for chunk in stream] == []
            with pytest.warns(ResourceWarning) if way is forget_it else nullcontext():
                del stream
                gc.collect()
            await until(lambda: engine.stats().cancelled == 1)
            assert not scripted.scheduler.live and engine.stats().held == 0

    asyncio.run(main())


def test_a_task_cancelled_while_it_waits_for_a_chunk_ends_the_request(scripted: ScriptedBark) -> None:
    async def main() -> None:
        scripted.gate.clear()
        async with running(scripted) as engine:
            task = asyncio.create_task(read_all(engine.stream("hello", max_duration_s=FOREVER)))
            await until(lambda: engine.stats().held == 1)
            await asyncio.sleep(0.01)
            task.cancel()
            scripted.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: engine.stats().cancelled == 1)

    asyncio.run(main())


def test_a_slow_reader_stalls_only_itself(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=2, stream_buffer=4) as engine:
            slow = engine.stream("slow", max_duration_s=40)
            chunks = [await slow.__anext__()]
            await until(lambda: engine.stats().parked == 1 and len(scripted.scheduler.live[0].spoken) == 5)
            (utterance,) = scripted.scheduler.live
            # Other requests use the engine meanwhile, for any length of time.
            for _ in range(5):
                assert (await read_all(engine.stream("quick", max_duration_s=20))).size == 20 * CHUNK
                assert (await engine.generate("quick", max_duration_s=5)).audio.size == 5 * CHUNK
            assert len(utterance.spoken) == 5 and engine.stats().parked == 1
            chunks += [chunk async for chunk in slow]
            np.testing.assert_array_equal(np.concatenate(chunks), slow.generation.audio)
            assert len(chunks) == 40 and engine.stats().parked == 0

    asyncio.run(main())


def test_deadlines(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted, stream_buffer=2) as engine:
            with pytest.raises(DeadlineExceeded, match="not done by its deadline"):
                await engine.generate("hello", max_duration_s=FOREVER, deadline_s=0.05)
            # Deadlines also pass while the engine has no work. Chunks that were made before are still returned.
            stream = engine.stream("hello", max_duration_s=5, deadline_s=0.1)
            received = [await stream.__anext__()]
            await until(lambda: engine.stats().late == 2)
            with pytest.raises(DeadlineExceeded, match="its reader is too slow"):
                async for chunk in stream:
                    received.append(chunk)
            assert len(received) == 3
            assert [chunk async for chunk in stream] == []
            assert (await engine.generate("hello", deadline_s=60)).audio.size == CHUNK
            assert not scripted.scheduler.live

    asyncio.run(main())


@pytest.mark.parametrize("deadline", [-1, 0, float("nan"), float("inf"), "soon", True])
def test_deadlines_that_are_none_are_refused(scripted: ScriptedBark, deadline: Any) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            with pytest.raises(InputError, match="deadline_s is .*; expected a positive number"):
                await engine.generate("hello", deadline_s=deadline)
            with pytest.raises(InputError, match="deadline_s is"):
                await read_all(engine.stream("hello", deadline_s=deadline))
            assert engine.stats().accepted == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "options", [{"n_slots": 0}, {"n_slots": 2.5}, {"queue_size": -1}, {"stream_buffer": 0}, {"n_slots": True}]
)
def test_an_impossible_engine_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*; expected a whole number"):
        Engine(ScriptedBark(), **options)


def test_a_request_that_fails_fails_alone(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            good = asyncio.create_task(engine.generate("good", max_duration_s=50))
            with pytest.raises(InputError, match="nobody"):
                await engine.generate("hello", "nobody")
            with pytest.raises(InputError, match="refused"):
                await engine.generate("refused")
            with pytest.raises(EngineError, match="not finite"):
                await engine.generate("NaN")
            with pytest.raises(EngineError, match="not finite"):
                await read_all(engine.stream("NaN"))
            with pytest.raises(InputError, match="mode is 'quick'"):
                engine.stream("hello", mode="quick")
            assert (await good).audio.size == 50 * CHUNK
            stats = engine.stats()
            assert stats.healthy and (stats.failed, stats.done, stats.held) == (3, 1, 0)

    asyncio.run(main())


def test_an_engine_that_dies_takes_everyone_and_says_so(
    scripted: ScriptedBark, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        scripted.gate.clear()
        async with running(scripted, n_slots=4, queue_size=0) as engine:
            tasks = [asyncio.create_task(engine.generate(text, max_duration_s=9)) for text in ("a", "b", "boom")]
            stream = engine.stream("c", max_duration_s=9)
            tasks.append(asyncio.create_task(read_all(stream)))
            await until(lambda: engine.stats().held == 4)
            tasks.append(asyncio.create_task(engine.generate("outside", wait=True)))
            await asyncio.sleep(0)
            assert engine.healthy and engine.accepting
            scripted.gate.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {EngineDead}
            assert len({id(outcome) for outcome in outcomes}) == 5
            assert "RuntimeError: the device fell off the bus" in str(outcomes[0])
            assert isinstance(outcomes[0].__cause__, RuntimeError)
            assert not engine.healthy and not engine.accepting and not engine.stats().healthy
            with pytest.raises(EngineDead):
                await engine.generate("later")
            assert engine.stats().held == 0
            assert await asyncio.wait_for(engine.drain(), 5)

    asyncio.run(main())
    assert "the serving engine failed" in caplog.text


def test_a_model_that_cannot_be_loaded_says_so_itself(scripted: ScriptedBark, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise InputError("model is 'nothing'; expected something")

    monkeypatch.setattr(module, "Scheduler", fail)

    async def main() -> None:
        engine = Engine(scripted)
        with pytest.raises(InputError, match="model is 'nothing'"):
            await engine.start()
        assert not engine.healthy
        with pytest.raises(EngineDead):
            await engine.generate("hello")
        await engine.close()

    asyncio.run(main())


def test_drain_takes_nothing_new_and_ends_what_there_is(scripted: ScriptedBark) -> None:
    async def main() -> None:
        scripted.gate.clear()
        async with running(scripted, n_slots=1, queue_size=1) as engine:
            tasks = [asyncio.create_task(engine.generate("hello", max_duration_s=5)) for _ in range(2)]
            await until(lambda: engine.stats().held == 2)
            outside = asyncio.create_task(engine.generate("outside", wait=True))
            await asyncio.sleep(0)
            assert not await engine.drain(0.05)
            assert engine.healthy and not engine.accepting
            for task in (outside, asyncio.create_task(engine.generate("late"))):
                with pytest.raises(EngineClosed, match="drained"):
                    await task
            scripted.gate.set()
            assert await engine.drain()
            assert [(await task).audio.size for task in tasks] == [5 * CHUNK] * 2

    asyncio.run(main())


def test_close_ends_everything_and_may_be_repeated(scripted: ScriptedBark) -> None:
    async def main() -> None:
        engine = Engine(scripted, n_slots=1)
        with pytest.raises(EngineClosed, match="not been started"):
            await engine.generate("hello")
        await engine.start()
        with pytest.raises(EngineClosed, match="started or closed before"):
            await engine.start()
        tasks = [asyncio.create_task(engine.generate("hello", max_duration_s=FOREVER)) for _ in range(3)]
        tasks.append(asyncio.create_task(read_all(engine.stream("hello", max_duration_s=FOREVER))))
        await until(lambda: engine.stats().held == 4)
        await engine.close()
        await engine.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {EngineClosed}
        assert engine.stats().cancelled == 4 and not engine.healthy
        with pytest.raises(EngineClosed, match="was closed"):
            await engine.generate("hello")

    asyncio.run(main())


def test_it_belongs_to_one_event_loop(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted) as engine:

            async def elsewhere() -> None:
                with pytest.raises(EngineClosed, match="another event loop"):
                    await engine.generate("hello")

            await asyncio.get_running_loop().run_in_executor(None, asyncio.run, elsewhere())

    asyncio.run(main())


def test_long_rounds_and_slow_voices_do_not_hold_the_event_loop(scripted: ScriptedBark) -> None:
    scripted.round_s, scripted.on_request = 0.5, lambda: time.sleep(0.5)

    async def main() -> None:
        async with running(scripted) as engine:
            task = asyncio.create_task(engine.generate("hello", max_duration_s=2))
            late: list[float] = []
            while not task.done():
                start = time.monotonic()
                await asyncio.sleep(0.005)
                assert engine.healthy
                late.append(time.monotonic() - start)
            assert (await task).audio.size == 2 * CHUNK
            assert len(late) > 20 and max(late) < 0.4

    asyncio.run(main())


def test_a_start_that_nobody_waits_for_leaves_nothing(scripted: ScriptedBark, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = threading.Event()

    def load_slowly(*args: Any, **options: Any) -> ScriptedScheduler:
        loading.wait(10)
        return ScriptedScheduler(*args, **options)

    monkeypatch.setattr(module, "Scheduler", load_slowly)

    async def main() -> None:
        engine = Engine(scripted)
        task = asyncio.create_task(engine.start())
        await asyncio.sleep(0.01)
        with pytest.raises(EngineClosed, match="not been started"):
            await engine.generate("hello")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        loading.set()
        await engine.close()
        assert scripted.scheduler.closed and not engine.healthy
        with pytest.raises(EngineClosed, match="did not start"):
            await engine.generate("hello")

    asyncio.run(main())


def test_how_long_a_round_lasts_is_seen_from_outside(scripted: ScriptedBark) -> None:
    async def main() -> None:
        scripted.gate.clear()
        async with running(scripted) as engine:
            task = asyncio.create_task(engine.generate("hello", priority=7, deadline_s=30))
            await until(lambda: engine.stats().round_s > 0.05)
            assert engine.healthy
            (utterance,) = scripted.scheduler.live
            assert utterance.request.priority == 7
            assert 25 < utterance.request.deadline - time.monotonic() < 30
            scripted.gate.set()
            await task
            assert engine.stats().round_s == 0 and engine.stats().busy_s > 0.05

    asyncio.run(main())


def test_a_text_that_takes_long_to_read_keeps_nobody_waiting(scripted: ScriptedBark) -> None:
    read = threading.Event()
    scripted.on_tokenize = lambda text: text == "short" or read.wait(10)

    async def main() -> None:
        async with running(scripted, n_slots=1) as engine:
            long = asyncio.create_task(engine.generate("a million characters"))
            for _ in range(3):
                assert (await engine.generate("short", max_duration_s=5)).audio.size == 5 * CHUNK
            assert not long.done()
            read.set()
            assert (await long).audio.size == CHUNK

    asyncio.run(main())


def test_percentiles() -> None:
    assert percentiles([]) is None
    assert percentiles([3.0]) == (3.0, 3.0)
    assert percentiles(range(1, 101)) == (50, 95)


# --- with a model

TEXT = "Hello, this is a test."
SHORT = {"max_duration_s": 0.4}


@pytest.fixture(scope="module")
def bark() -> Bark:
    return Bark("random:demo", device="cpu")


@pytest.fixture(scope="module")
def single(bark: Bark) -> dict[int, Any]:
    """Seed -> the result of a single call; two seeds."""
    return {seed: bark.generate(TEXT, seed=seed, **SHORT) for seed in (1, 2)}


def test_a_model_speaks_as_it_does_alone(bark: Bark, single: dict[int, Any]) -> None:
    async def main() -> None:
        async with running(bark, n_slots=2) as engine:
            streams = [engine.stream(TEXT, seed=seed, **SHORT) for seed in (1, 2)]
            tasks = [engine.generate(TEXT, seed=seed, **SHORT) for seed in (1, 2)]
            first, second, *received = await asyncio.gather(*tasks, *map(read_all, streams))
            for seed, generation, sound in ((1, first, received[0]), (2, second, received[1])):
                for key in ("semantic", "coarse", "fine", "audio"):
                    np.testing.assert_array_equal(getattr(generation, key), getattr(single[seed], key))
                if not isinstance(bark.components.network("codec"), CpuCodec):
                    np.testing.assert_allclose(sound, single[seed].audio, atol=1e-6)
                else:
                    np.testing.assert_array_equal(sound, single[seed].audio)
            low = engine.stream(TEXT, seed=1, mode="low_latency", **SHORT)
            assert (await read_all(low)).shape == single[1].audio.shape
            np.testing.assert_array_equal(low.generation.semantic, single[1].semantic)

    asyncio.run(main())
    # The engine has released the model.
    np.testing.assert_array_equal(bark.generate(TEXT, seed=1, **SHORT).audio, single[1].audio)


def test_bad_input_to_a_model(bark: Bark) -> None:
    async def main() -> None:
        async with running(bark, n_slots=2) as engine:
            for text, options, error, message in (
                ("", {}, InputError, "nothing to say"),
                (TEXT, {"voice": "v2/en_speaker_66"}, VoiceError, "v2/en_speaker_6"),
                (TEXT, {"text_temp": -1}, InputError, "text_temp is -1"),
                (TEXT, {"seed": "lucky"}, InputError, "seed is 'lucky'"),
                ("abcd " * 200_000, {"overflow": "error"}, InputError, "tokens"),
                (TEXT, {"priority": "high"}, InputError, "priority is 'high'"),
            ):
                with pytest.raises(error, match=message):
                    await engine.generate(text, **options, **SHORT)
            assert (await engine.generate(TEXT, seed=1, **SHORT)).audio.size

    asyncio.run(main())


def test_a_model_serves_one_engine_at_a_time(bark: Bark, single: dict[int, Any]) -> None:
    async def main() -> None:
        async with running(bark, n_slots=2) as engine:
            with pytest.raises(EngineError, match="at work already"):
                await Engine(bark).start()
            with pytest.raises(EngineError, match="at work already"):
                await asyncio.to_thread(bark.generate, TEXT, **SHORT)
            generation = await engine.generate(TEXT, seed=1, **SHORT)
            np.testing.assert_array_equal(generation.audio, single[1].audio)

    asyncio.run(main())
