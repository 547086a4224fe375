"""The asyncio engine's requests and streams, with a scripted scheduler."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from barkfast import InputError
from barkfast.engine.results import percentiles
from barkfast.errors import EngineError
from engine.asyncio_tools import FOREVER, read_all, running, until
from engine.scripted import CHUNK, ScriptedBark


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


def test_percentiles() -> None:
    assert percentiles([]) is None
    assert percentiles([3.0]) == (3.0, 3.0)
    assert percentiles(range(1, 101)) == (50, 95)
