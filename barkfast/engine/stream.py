"""Audio as it is ready, for one who reads it from an event loop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import numpy as np

from barkfast.engine.generation import Generation
from barkfast.engine.sinks import Inlet
from barkfast.engine.ticket import Ticket
from barkfast.engine.worker import Worker


class Stream:
    """The chunks of one request, (n,) float32 each: `async for chunk in stream`.

    The request is made by `async with stream`, or else with the first chunk; its errors, QueueFull among them, are
    raised there, those of later work where the next chunk would have been. Leaving the `async with`, `aclose()`,
    dropping the stream, or cancelling a task that waits for a chunk ends the request within a round of the engine's
    work. As long as many chunks lie unread, its utterance waits, and no other.

    `generation` holds the whole when all chunks have been read, as `generate` would have returned it.
    """

    def __init__(self, submit: Callable[[Inlet], Awaitable[tuple[Worker, Ticket]]]) -> None:
        self.generation: Generation | None = None
        self._submit, self._inlet = submit, Inlet()
        self._asked: tuple[Worker, Ticket] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def open(self) -> None:
        """Make the request, unless it is made. Errors: those of `Engine.generate`."""
        if self._asked is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            try:
                self._asked = await self._submit(self._inlet)
            except BaseException:
                self._closed = True
                raise

    async def __aenter__(self) -> "Stream":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> np.ndarray:
        await self.open()
        inlet = self._inlet
        while not self._closed and not inlet.chunks and not inlet.ended:
            inlet.news.clear()
            try:
                await inlet.news.wait()
            except asyncio.CancelledError:
                await self.aclose()
                raise
        if self._closed or not inlet.chunks:
            self._closed = True
            outcome, inlet.outcome = inlet.outcome, None
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is not None:
                self.generation = outcome
            raise StopAsyncIteration
        chunk = inlet.chunks.popleft()
        assert self._asked is not None
        worker, ticket = self._asked
        worker.read(ticket)
        return chunk

    async def aclose(self) -> None:
        """End the request, if it has not ended; chunks that were not read are gone."""
        if self._closed:
            return
        self._closed = True
        self._inlet.chunks.clear()
        self._inlet.outcome = None
        self._inlet.news.set()
        if self._asked is not None:
            worker, ticket = self._asked
            worker.cancel(ticket)

    def __del__(self) -> None:
        if self._asked is None or self._closed or self._inlet.ended or self._loop is None:
            return
        worker, ticket = self._asked
        # Not here: this may run anywhere, with any lock held. A closed loop has no one left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(worker.cancel, ticket)
