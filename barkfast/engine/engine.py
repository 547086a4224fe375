"""Many requests at once from an event loop: a queue with back-pressure in front of a thread that does the work."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from barkfast.config import Layout
from barkfast.engine.checks import check_count, check_seconds
from barkfast.engine.generation import Generation
from barkfast.engine.places import Places
from barkfast.engine.request import Request
from barkfast.engine.scheduler import Scheduler
from barkfast.engine.sinks import Answer, Inlet, Sink
from barkfast.engine.stats import Stats
from barkfast.engine.stream import Stream
from barkfast.engine.ticket import Outcome, Ticket
from barkfast.engine.worker import Worker
from barkfast.errors import BarkfastError, EngineClosed, EngineDead, InputError, QueueFull
from barkfast.parts import Parts

MODES = ("exact", "low_latency")


class Speaker(Protocol):
    """What an engine takes of a `Bark`."""

    parts: Parts

    @property
    def layout(self) -> Layout: ...

    def request(self, *args: Any, **options: Any) -> Request: ...


class Engine:
    """Speaks for many at once: requests enter and leave between the steps of those that are being spoken.

    Args:
        bark: a `Bark`, which belongs to the engine until that is closed; nobody else may speak with it.
        n_slots: utterances that are spoken side by side.
        queue_size: requests that may wait beyond those; further ones are refused, or wait outside if they like.
        stream_buffer: chunks of a stream that may lie unread before its utterance waits for its reader.

    `async with Engine(bark) as engine:` loads the networks and begins; leaving it ends what is still being spoken, so
    `drain()` first where that matters. All methods belong to the event loop that started it. None of them blocks it:
    networks run in one thread of their own, texts and voices are read in others.
    """

    def __init__(self, bark: Speaker, *, n_slots: int = 8, queue_size: int = 64, stream_buffer: int = 8) -> None:
        self.n_slots = check_count("n_slots", n_slots, 1, "utterances side by side")
        check_count("queue_size", queue_size, 0, "requests that may wait for a slot")
        self._most_unread = check_count("stream_buffer", stream_buffer, 1, "chunks of a stream that may lie unread")
        self._bark = bark
        self._worker = Worker(self._build, self._post)
        self._places = Places(n_slots + queue_size)
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="barkfast-reader")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Load the networks and begin. Errors: those of loading a model; EngineClosed for a second start."""
        if self._loop is not None or self._places.closed is not None:
            raise EngineClosed("the engine was started or closed before; make a new one")
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._worker.start(self._hear)
        try:
            await self._ready
        except BaseException:
            # Also where whoever waited for the networks did not want to wait any longer.
            self._shut("the engine did not start")
            raise

    async def __aenter__(self) -> "Engine":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self._bark.layout.sample_rate

    @property
    def healthy(self) -> bool:
        """Whether the thread that does the work is there; asks nothing of it, so that a long round is no illness."""
        return self._ready is not None and self._ready.done() and self._worker.alive

    @property
    def accepting(self) -> bool:
        """Whether new requests are taken: healthy, and neither draining nor closed."""
        return self.healthy and self._places.closed is None

    def stats(self) -> Stats:
        """Numbers about all that has been asked and done so far."""
        return self._worker.tally.look(self.healthy)

    async def generate(
        self,
        text: str,
        voice: Any = None,
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        wait: bool = False,
        **options: Any,
    ) -> Generation:
        """Speak `text`: the tokens and samples of `Bark.generate` alone.

        Args:
            text, voice: as of `Bark.generate`.
            priority: of two requests that are equally due, the one of higher priority goes first.
            deadline_s: seconds from now until when it must be done.
            wait: where the queue is full, for a place in it, rather than to be refused.
            options: the others of `Bark.generate`, e.g. seed and temperatures.

        Errors: QueueFull, DeadlineExceeded, EngineClosed, EngineDead; InputError and VoiceError as of `Bark.generate`.
        Cancelling the task that waits frees all that the request has within a round of work.
        """
        answer = Answer()
        asked = dict(options, stream="off", priority=priority)
        ticket = await self._submit(text, voice, answer, deadline_s, wait, asked)
        try:
            return await answer.future
        except asyncio.CancelledError:
            self._worker.cancel(ticket)
            raise

    def stream(
        self,
        text: str,
        voice: Any = None,
        *,
        mode: str = "exact",
        priority: int = 0,
        deadline_s: float | None = None,
        wait: bool = False,
        **options: Any,
    ) -> Stream:
        """Speak `text` and hand out (n,) float32 chunks as they are ready; see `Stream`.

        Args:
            mode: "exact" for the samples of `generate`, or "low_latency" for the first of them sooner; what that
                changes is in docs/streaming.md.
            deadline_s: seconds from now until when all of it must have been made.

        The other arguments and the errors are those of `generate`.
        """
        if mode not in MODES:
            raise InputError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
        asked = dict(options, stream=mode, priority=priority)

        async def submit(inlet: Inlet) -> tuple[Worker, Ticket]:
            return self._worker, await self._submit(text, voice, inlet, deadline_s, wait, asked)

        return Stream(submit)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, and wait until all that was accepted has ended; False if that took more than `timeout_s`.

        Streams are accepted requests: a reader who never comes keeps this waiting.
        """
        self._places.close(EngineClosed("the engine is being drained and takes no new requests"))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._places.wait_until_empty(), timeout_s)
        return self._places.empty

    async def close(self) -> None:
        """End every request with EngineClosed, and the thread, which finishes its round. Once or more often."""
        self._shut("the engine was closed")
        if self._loop is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._worker.join)

    async def _submit(
        self, text: str, voice: Any, sink: Sink, deadline_s: float | None, wait: bool, asked: dict[str, Any]
    ) -> Ticket:
        """Find a place, check the request, and pass it to the worker."""
        loop = asyncio.get_running_loop()
        if self._ready is None or not self._ready.done():
            self._places.check_open()
            raise EngineClosed("the engine has not been started; use `async with engine:` or `await engine.start()`")
        if loop is not self._loop:
            raise EngineClosed("the engine belongs to another event loop; make one for this")
        deadline = None if deadline_s is None else time.monotonic() + check_seconds("deadline_s", deadline_s)
        try:
            await self._places.take(wait, deadline)
        except QueueFull:
            self._worker.tally.refused += 1
            raise
        try:
            read = partial(self._read, text, voice, dict(asked, deadline=deadline))
            request, text_ids = await loop.run_in_executor(self._readers, read)
            ticket = Ticket(request, text_ids, sink.put, partial(self._end, sink), self._most_unread)
            self._worker.submit(ticket)
        except BaseException:
            self._places.give_back()
            raise
        return ticket

    def _read(self, text: str, voice: Any, asked: dict[str, Any]) -> tuple[Request, Any]:
        """Check a request, read its voice, tokenize its text: in a thread in which it may take its time."""
        request = self._bark.request(text, voice, **asked)
        return request, self._worker.tokenize(request)

    def _end(self, sink: Sink, outcome: Outcome) -> None:
        """A ticket ended."""
        self._places.give_back()
        sink.end(outcome)

    def _build(self) -> Scheduler:
        """The scheduler and all networks, in the thread that is going to use them."""
        return Scheduler(self._bark.parts, self._bark.layout, n_slots=self.n_slots)

    def _post(self, call: Callable[..., None], *args: Any) -> None:
        """Hand a call from the worker's thread to the event loop."""
        # A loop that was closed has no one left who waits.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *args)

    def _hear(self, dead: EngineDead | None) -> None:
        """The worker says that it is ready, or dead."""
        if dead is not None:
            self._places.close(dead)
        if self._ready is None or self._ready.done():
            return
        if dead is None:
            self._ready.set_result(None)
        else:
            # A model that cannot be loaded says so itself.
            self._ready.set_exception(dead.__cause__ if isinstance(dead.__cause__, BarkfastError) else dead)

    def _shut(self, why: str) -> None:
        self._places.close(EngineClosed(why))
        self._worker.stop()
        self._readers.shutdown(wait=False)
