"""A server on a real socket in a thread of the tests' own process, and what tests ask of it."""

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import soundfile
import uvicorn

from barkfast import Bark, Engine
from barkfast.server.app import create_app
from barkfast.server.run import open_socket
from barkfast.server.settings import About, Settings
from barkfast.voices import find_voices

TEXT = "Hello there."
# Samples that a decoder adds to a sound: the delay of mp3, opus and aac, and their last frame.
MORE = {"mp3": 2400, "opus": 480, "aac": 3072}


class Running:
    """The server, from entering the block to leaving it.

    Args:
        settings: as of Settings.
    """

    def __init__(self, bark: Bark, n_slots: int = 4, queue_size: int = 64, **settings: Any) -> None:
        self.bark, self.n_slots, self.queue_size, self.settings = bark, n_slots, queue_size, Settings(**settings)
        self.socket = open_socket("127.0.0.1", 0)
        # Connections inherit it. The system's own would take megabytes for a reader that stalls.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with Engine(self.bark, n_slots=self.n_slots, queue_size=self.queue_size) as self.engine:
            voices = tuple(find_voices(self.bark.checkpoint))
            about = About("demo", voices, "cpu", "bfloat16", self.n_slots, self.bark.layout)
            self.app = create_app(self.engine, self.settings, about)
            config = uvicorn.Config(self.app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[self.socket]))
            while not server.started:
                await asyncio.sleep(0.01)
            self._started.set()
            await self._stop.wait()
            server.should_exit = True
            await serving

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def post(self, body: Any = None, **how: Any) -> httpx.Response:
        """POST /v1/audio/speech."""
        if body is not None:
            how["json"] = body
        return httpx.post(f"{self.url}/v1/audio/speech", timeout=120, **how)

    def get(self, path: str, **how: Any) -> httpx.Response:
        """GET a path."""
        return httpx.get(self.url + path, timeout=60, **how)

    def counts(self) -> dict[str, float]:
        """How requests have ended so far: outcome -> number."""
        requests = self.app.state.server.metrics.requests
        return {
            s.labels["outcome"]: s.value for s in next(iter(requests.collect())).samples if s.name.endswith("_total")
        }

    def raw(self, body: bytes, length: int | None = None) -> socket.socket:
        """A connection on which a request for speech was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection

    def wait_idle(self) -> None:
        """Wait until no request is open and the engine holds none."""
        wait_for(lambda: self.app.state.server.speaker.n_open == 0 and self.engine.stats().held == 0)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a condition holds. Raises: AssertionError."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def decode(data: bytes, format: str, n: int = 0) -> np.ndarray:
    """(n,) float64 samples at 24 kHz of the bytes of a format.

    Args:
        n: samples that a flac must have: libsndfile refuses one whose head leaves that open; other decoders do not.
    """
    if format == "pcm":
        return np.frombuffer(data, "<i2") / 32768
    if format == "flac":
        # The last 36 bits of the 8 bytes behind the block's sizes.
        packed = int.from_bytes(data[18:26], "big")
        assert packed & (1 << 36) - 1 == 0
        data = data[:18] + (packed | n).to_bytes(8, "big") + data[26:]
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == 24_000
    return samples


@contextmanager
def variables(owner: Any, **values: Any) -> Any:
    """Attributes of a module have other values in the block."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
