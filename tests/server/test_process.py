"""The engine in its process: what `Engine` gives, and what happens when the process dies, hangs or is idle."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from barkfast import Bark
from barkfast.errors import EngineDead, InputError, QueueFull, VoiceError
from barkfast.server import frames, process
from barkfast.server.app import create_app
from barkfast.server.process import EngineProcess, EngineSettings
from barkfast.server.run import open_socket
from barkfast.server.settings import Settings
from server.running import TEXT, variables, wait_for


class InProcess:
    """An engine's process and a server in front of it, in an event loop of a thread."""

    def __init__(self) -> None:
        import threading

        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.engine = EngineProcess(EngineSettings("demo", "cpu", slots=2, queue=1))
        self.socket = open_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.run(self._start())

    async def _start(self) -> None:
        app = create_app(self.engine, Settings(), lambda: self.engine.about)
        self.app = app
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self.serving = asyncio.create_task(self.server.serve(sockets=[self.socket]))
        assert not self.engine.accepting
        await self.engine.start()

    async def _end(self) -> None:
        self.server.should_exit = True
        await self.serving
        await self.engine.close()

    def begin(self, work: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Any) -> Any:
        return self.begin(work).result(180)

    def end(self) -> None:
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)

    @property
    def pid(self) -> int:
        return self.engine._process.pid

    def settle(self) -> None:
        """Wait until the process has no requests; its reports are a fifth of a second old."""
        time.sleep(0.5)
        wait_for(lambda: self.engine.stats().held == 0)

    def post(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/audio/speech", json={"input": TEXT, **body}, timeout=120)


@pytest.fixture(scope="module")
def child() -> Iterator[InProcess]:
    running = InProcess()
    yield running
    running.end()


async def read(engine: EngineProcess, text: str, **options: Any) -> tuple[np.ndarray, Any]:
    stream = engine.stream(text, **options)
    async with stream:
        chunks = [chunk async for chunk in stream]
    return np.concatenate(chunks), stream


def test_it_gives_what_an_engine_gives(child: InProcess):
    made = child.run(child.engine.generate(TEXT, seed=1, voice="calm"))
    alone = Bark("demo", device="cpu").generate(TEXT, seed=1, voice="calm")
    for name in ("audio", "semantic", "coarse", "fine"):
        assert np.array_equal(getattr(made, name), getattr(alone, name)), name
    assert made.sample_rate == 24_000 and set(made.timings) == {"semantic", "coarse", "fine", "codec"}
    sound, stream = child.run(read(child.engine, "Apples. Pears.", seed=1, voice="calm", mode="exact"))
    assert [sentence.text for sentence in stream.sentences] == ["Apples.", "Pears."]
    assert len(sound) > 24_000 and sum(stream.timings.values()) > 0 and stream.queue_wait_s >= 0
    wait_for(lambda: child.engine.stats().done == 3)
    assert child.engine.stats().held == 0 and child.engine.free_bytes > 0


def test_errors_come_across_as_they_are(child: InProcess):
    with pytest.raises(VoiceError, match="nobody"):
        child.run(child.engine.generate(TEXT, voice="nobody"))
    with pytest.raises(InputError):
        child.run(read(child.engine, "!?"))

    async def fill() -> None:
        streams = [child.engine.stream("Hello there. " * 30) for _ in range(4)]
        try:
            for stream in streams:
                await stream.open()
        finally:
            for stream in streams:
                await stream.aclose()

    with pytest.raises(QueueFull):
        child.run(fill())
    child.settle()


def test_a_consumer_that_does_not_read_holds_few_chunks(child: InProcess):
    async def stall() -> int:
        async with child.engine.stream("Hello there. " * 60, mode="low_latency") as stream:
            await anext(stream)
            before = -1.0
            while child.engine.stats().busy_s != before:
                before = child.engine.stats().busy_s
                await asyncio.sleep(1)
            return stream._answers.qsize()

    assert child.run(stall()) <= process.CREDIT
    child.settle()


def test_a_killed_process_is_seen_answered_and_started_again(child: InProcess):
    restarts = child.engine.restarts
    begun = child.begin(read(child.engine, "Hello there. " * 100))
    wait_for(lambda: child.engine.stats().held == 1)
    with variables(process, BACK_OFF_S=(2.0, 2.0, 2.0)):
        os.kill(child.pid, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(EngineDead):
            begun.result(60)
        response = child.post()
        seen = time.monotonic() - killed
        assert response.status_code == 503 and "retry-after" in response.headers
        assert httpx.get(f"{child.url}/readyz").status_code == 503
        assert httpx.get(f"{child.url}/livez").status_code == 200
        assert seen < 1, f"{seen:.2f} s"
        wait_for(lambda: child.engine.accepting, 120)
    assert child.engine.restarts == restarts + 1
    assert child.post().status_code == 200
    assert "barkfast_engine_restarts 1.0" in httpx.get(f"{child.url}/metrics").text


def test_a_hung_process_is_ended_and_started_again(child: InProcess):
    restarts, pid = child.engine.restarts, child.pid
    with variables(process, SILENT_S=1.0, BACK_OFF_S=(0.1, 0.1, 0.1)):
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EngineDead, match="not answered"):
            child.run(child.engine.generate(TEXT))
    wait_for(lambda: child.engine.accepting and child.engine.restarts == restarts + 1, 120)
    assert child.pid != pid
    assert child.post().status_code == 200


def test_an_idle_process_gives_its_memory_back_and_comes_back(child: InProcess):
    from dataclasses import replace

    pid, before = child.pid, child.engine.settings
    child.engine.settings = replace(before, idle_s=0.3)
    wait_for(lambda: child.engine._unloaded and child.engine._process.returncode is not None)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert httpx.get(f"{child.url}/readyz").status_code == 200
    child.engine.settings = before
    # All who wait share one start.
    answers = [child.begin(child.engine.generate("Yes.", seed=1)) for _ in range(2)]
    assert np.array_equal(answers[0].result(120).audio, answers[1].result(120).audio)
    assert child.engine.accepting and child.pid != pid


def test_a_process_that_cannot_start_again_is_given_up_after_three_tries():
    async def run() -> tuple[int, bool]:
        engine = EngineProcess(EngineSettings("demo"))
        tries = 0

        async def fail() -> None:
            nonlocal tries
            tries += 1
            raise EngineDead("the engine's process ended while it loaded the model")

        engine._start = fail  # type: ignore[method-assign]
        with variables(process, BACK_OFF_S=(0.01, 0.01, 0.01)):
            watching = asyncio.create_task(engine._watch())
            while engine._dead is None:
                await asyncio.sleep(0.02)
            watching.cancel()
        with pytest.raises(EngineDead, match="4 times"):
            await engine.generate(TEXT)
        return tries, engine.healthy

    assert asyncio.run(run()) == (3, False)


def test_messages_are_framed_and_bounded():
    async def run(data: bytes) -> Any:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await frames.read(reader)

    message, data = asyncio.run(run(frames.pack({"id": 1, "text": "é"}, b"abc")))
    assert (message, data) == ({"id": 1, "text": "é"}, b"abc")
    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(run(frames.pack({"id": 1}, b"abc")[:-1]))
    with pytest.raises(process.EngineError, match="expected"):
        asyncio.run(run(frames.HEAD.pack(frames.MOST_OBJECT + 1, 0)))
    with pytest.raises(process.EngineError, match="expected"):
        frames.pack({"text": "x" * frames.MOST_OBJECT})
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.zeros(0, np.float32)}
    back = frames.make_arrays(*frames.pack_arrays(arrays))
    assert all(np.array_equal(back[name], arrays[name]) and back[name].dtype == arrays[name].dtype for name in arrays)
