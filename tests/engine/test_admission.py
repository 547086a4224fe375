"""The asyncio engine's queue: capacity, deadlines, cancelled callers, texts that take long to read."""

import asyncio
import threading
import time
from typing import Any

import pytest

from barkfast import InputError
from barkfast.errors import DeadlineExceeded, QueueFull
from engine.asyncio_tools import FOREVER, read_all, running, until
from engine.scripted import CHUNK, ScriptedBark


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
