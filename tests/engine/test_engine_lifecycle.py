"""The asyncio engine's start and end: impossible settings, failures of the whole engine, drain, close."""

import asyncio
import threading
from typing import Any

import pytest

from barkfast import InputError
from barkfast.engine import async_engine as module
from barkfast.engine.async_engine import Engine
from barkfast.errors import EngineClosed, EngineDead
from engine.asyncio_tools import FOREVER, read_all, running, until
from engine.scripted import CHUNK, ScriptedBark, ScriptedScheduler


@pytest.mark.parametrize(
    "options", [{"n_slots": 0}, {"n_slots": 2.5}, {"queue_size": -1}, {"stream_buffer": 0}, {"n_slots": True}]
)
def test_an_impossible_engine_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*; expected a whole number"):
        Engine(ScriptedBark(), **options)


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
