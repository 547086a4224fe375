"""Streams of several sentences through the asyncio engine: one prefetched, one reservation for all, all released."""

import asyncio
import gc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from barkfast import Bark, Engine, InputError
from barkfast.bench.workload import full_voice
from barkfast.engine import async_engine as module
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineError, QueueFull
from engine.asyncio_tools import FOREVER, read_all, running, until
from engine.scripted import CHUNK, ScriptedBark

THREE = "This one comes first. This is the second. And now the third."
RATE = 24_000


def asked(bark: ScriptedBark) -> list[str]:
    return [request.text for request in bark.asked]


def test_the_next_sentence_is_spoken_while_one_is_heard(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=2) as engine:
            stream = engine.stream(THREE, "somebody", seed=5, max_duration_s=6)
            received = [await anext(stream)]
            await until(lambda: len(scripted.asked) == 2)
            await asyncio.sleep(0.02)
            # The third sentence is not submitted, however long the second takes.
            assert asked(scripted) == ["This one comes first.", "This is the second."]
            assert stream.generation is None
            received += [chunk async for chunk in stream]
            assert asked(scripted)[2] == "And now the third."
            assert [request.seed for request in scripted.asked] == [5, 6, 7]
            silence = 2 * round(0.35 * RATE)
            assert len(np.concatenate(received)) == 3 * 6 * CHUNK + silence
            assert len(stream.generation.audio) == 6 * CHUNK
            assert (engine.stats().done, engine.stats().held) == (3, 0)
            assert await asyncio.wait_for(engine.drain(), 5)

    asyncio.run(main())


def test_a_slow_reader_stalls_only_itself(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=2, stream_buffer=4) as engine:
            slow = engine.stream(THREE, "somebody", max_duration_s=40)
            chunks = [await anext(slow)]
            await until(lambda: engine.stats().parked == 2)
            spoken = [len(utterance.spoken) for utterance in scripted.scheduler.live]
            assert max(spoken) <= 7
            for _ in range(5):
                assert (await engine.generate("quick", max_duration_s=5)).audio.size == 5 * CHUNK
            assert [len(utterance.spoken) for utterance in scripted.scheduler.live] == spoken
            # The second sentence is prefetched: the consumer still receives the first.
            assert [utterance.prefetched for utterance in scripted.scheduler.live] == [False, True]
            assert [utterance.continues_stream for utterance in scripted.scheduler.live] == [False, True]
            while len(scripted.asked) < 5 + 3:
                chunks.append(await anext(slow))
            await until(lambda: [utterance.prefetched for utterance in scripted.scheduler.live] == [False, True])
            chunks += [chunk async for chunk in slow]
            assert len(np.concatenate(chunks)) == 3 * 40 * CHUNK + 2 * round(0.35 * RATE)

    asyncio.run(main())


def test_a_text_keeps_its_place_from_its_first_sentence_to_its_last(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=1, queue_size=0) as engine:
            async with engine.stream(THREE, "somebody", max_duration_s=6) as stream:
                await anext(stream)
                with pytest.raises(QueueFull):
                    await engine.stream(THREE).open()
                patient = asyncio.create_task(engine.generate("patient", wait=True))
                # Neither a full queue nor draining stops a stream that has started.
                draining = asyncio.create_task(engine.drain())
                with pytest.raises(EngineClosed, match="drained"):
                    await patient
                assert not draining.done()
                assert sum([len(chunk) async for chunk in stream]) > 2 * 6 * CHUNK
            assert await asyncio.wait_for(draining, 5)
            assert (engine.stats().done, engine.stats().refused) == (3, 1)

    asyncio.run(main())


async def forget(holder: list[Any]) -> None:
    holder.clear()
    gc.collect()


async def close(holder: list[Any]) -> None:
    await holder[0].aclose()


async def leave(holder: list[Any]) -> None:
    async with holder[0]:
        pass


@pytest.mark.parametrize("way", [forget, close, leave])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_whoever_goes_away_ends_all_of_it(scripted: ScriptedBark, way: Any, after: int) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=1, queue_size=0) as engine:
            holder = [engine.stream(THREE, "somebody", max_duration_s=6 if after == 7 else FOREVER)]
            await holder[0].open()
            for _ in range(after):
                await anext(holder[0])
            await way(holder)
            await until(lambda: not scripted.scheduler.live and engine.stats().held == 0)
            # Its reservation is released too.
            assert (await asyncio.wait_for(engine.generate("next", wait=True), 5)).audio.size == CHUNK
            if holder:
                assert [chunk async for chunk in holder[0]] == []

    asyncio.run(main())


def test_somebody_else_may_close_what_is_being_read(scripted: ScriptedBark) -> None:
    async def read(stream: Any) -> int:
        return len([chunk async for chunk in stream])

    async def main() -> None:
        async with running(scripted) as engine:
            stream = engine.stream(THREE, "somebody", max_duration_s=FOREVER)
            await anext(stream)
            scripted.gate.clear()
            task = asyncio.create_task(read(stream))
            await asyncio.sleep(0.02)
            await stream.aclose()
            scripted.gate.set()
            # The iteration ends as at the end of the audio, without an error.
            assert await asyncio.wait_for(task, 5) < 100
            await until(lambda: engine.stats().held == 0)

    asyncio.run(main())


def test_what_is_closed_before_it_is_open_leaves_nothing(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=1, queue_size=0) as engine:
            for while_waiting in (False, True):
                other = asyncio.create_task(engine.generate("first", max_duration_s=200)) if while_waiting else None
                await asyncio.sleep(0.01)
                stream = engine.stream(THREE, "somebody", max_duration_s=FOREVER, wait=while_waiting)
                opening = asyncio.create_task(stream.open())
                await asyncio.sleep(0)
                await stream.aclose()
                await asyncio.wait_for(opening, 5)
                if other is not None:
                    await other
                await until(lambda: engine.stats().held == 0)
                assert [chunk async for chunk in stream] == []
            assert await asyncio.wait_for(engine.drain(), 5)

    asyncio.run(main())


def test_an_error_names_its_sentence_and_comes_at_its_place(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            received: list[np.ndarray] = []
            with pytest.raises(EngineError, match="piece 2 of the text .'NaN'.: the logits are not finite"):
                async for chunk in engine.stream(
                    "This one comes first.\n\nNaN\n\nAnd now the third.", "me", max_duration_s=3
                ):
                    received.append(chunk)
            assert len(np.concatenate(received)) == 3 * CHUNK + round(0.75 * RATE)
            with pytest.raises(EngineError, match="^the logits"):
                await read_all(engine.stream("NaN"))
            await until(lambda: engine.stats().held == 0)
            assert await asyncio.wait_for(engine.drain(), 5)

    asyncio.run(main())


def test_a_sentence_that_came_to_nothing_is_drawn_again(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            with pytest.raises(InputError, match="piece 2 of the text .'refused'"):
                await read_all(engine.stream("This one comes first.\n\nrefused", "somebody", seed=1))
            assert asked(scripted) == ["This one comes first.", *["refused"] * 3]
            assert len({request.seed for request in scripted.asked}) == 4
            assert await asyncio.wait_for(engine.drain(), 5)

    asyncio.run(main())


def test_one_deadline_for_all(scripted: ScriptedBark) -> None:
    async def main() -> None:
        async with running(scripted) as engine:
            stream = engine.stream(THREE, "somebody", max_duration_s=3, deadline_s=30)
            await read_all(stream)
            assert len({request.deadline for request in scripted.asked}) == 1
            late = engine.stream(THREE, "somebody", max_duration_s=3, deadline_s=0.1)
            await anext(late)
            await asyncio.sleep(0.15)
            with pytest.raises(DeadlineExceeded, match="piece 2 of the text|piece 3 of the text"):
                await read_all(late)
            assert await asyncio.wait_for(engine.drain(), 5)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("...", {}, "nothing to pronounce"),
        (" ", {}, "nothing to say"),
        (5, {}, "text is a int"),
        (THREE, {"language": "xx"}, "language is 'xx'"),
        (THREE, {"seed": "lucky"}, "seed is 'lucky'"),
        (THREE, {"voice": "nobody"}, "nobody"),
    ],
)
def test_what_cannot_be_spoken_is_refused_with_the_first(
    scripted: ScriptedBark, text: Any, options: dict[str, Any], message: str
) -> None:
    async def main() -> None:
        async with running(scripted, n_slots=1, queue_size=0) as engine:
            with pytest.raises(InputError, match=message):
                await engine.stream(text, **options).open()
            assert engine.stats().accepted == 0
            assert (await engine.generate("hello")).audio.size == CHUNK

    asyncio.run(main())


def test_a_model_gives_what_it_gives_alone() -> None:
    bark = Bark("random:demo", device="cpu", dtype="float32")
    options = {"seed": 4, "max_duration_s": 0.4}
    voice = full_voice(bark.layout)
    expected = {
        (mode, named): np.concatenate(list(bark.stream(THREE, voice if named else None, mode=mode, **options)))
        for mode in ("exact", "low_latency")
        for named in (True, False)
    }
    whole = bark.generate(THREE, **options).audio

    async def main() -> None:
        async with running(bark, n_slots=3) as engine:
            streams = [engine.stream(THREE, voice if named else None, mode=mode, **options) for mode, named in expected]
            received = await asyncio.gather(*map(read_all, streams))
            for sound, same in zip(received, expected.values(), strict=True):
                np.testing.assert_allclose(sound, same, atol=1e-6)
            one = await read_all(engine.stream(THREE, each_sentence=False, **options))
            np.testing.assert_allclose(one, whole, atol=1e-6)
            assert await asyncio.wait_for(engine.drain(), 30)

    asyncio.run(main())


def test_the_package_has_the_engine_when_it_is_asked_for() -> None:
    import barkfast

    assert barkfast.Engine is Engine is module.Engine
    with pytest.raises(AttributeError, match="has no attribute 'Engines'"):
        barkfast.Engines  # noqa: B018
    code = "import sys, barkfast; assert 'barkfast.engine.async_engine' not in sys.modules; from barkfast import Engine"
    subprocess.run([sys.executable, "-c", code], check=True)
