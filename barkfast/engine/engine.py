"""Many requests at once from an event loop: a queue with back-pressure in front of a thread that does the work."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from barkfast.checks import check_count
from barkfast.components import COMPONENTS
from barkfast.engine.generation import Generation
from barkfast.engine.intake import Intake
from barkfast.engine.lines import Lines
from barkfast.engine.live import check_mode
from barkfast.engine.scheduler import Scheduler
from barkfast.engine.sinks import Answer
from barkfast.engine.stats import Stats
from barkfast.engine.stream import Stream
from barkfast.engine.turns import Speaker
from barkfast.engine.worker import Worker
from barkfast.errors import BarkfastError, EngineClosed, EngineDead
from barkfast.normalize import Markup


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
        check_count("stream_buffer", stream_buffer, 1, "chunks of a stream that may lie unread")
        self._bark = bark
        self._worker = Worker(self._build, self._post)
        self._intake = Intake(self._worker, n_slots + queue_size, stream_buffer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Load the networks and begin. Errors: those of loading a model; EngineClosed for a second start."""
        if self._loop is not None or self._intake.places.closed is not None:
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
        return self.healthy and self._intake.places.closed is None

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
        request = partial(self._bark.request, text, voice, **options, stream="off", priority=priority)
        stay = await self._intake.enter(deadline_s, wait)
        try:
            ticket = await self._intake.submit(stay, partial(request, deadline=stay.deadline), answer)
        finally:
            stay.close()
        try:
            return await answer.future
        except asyncio.CancelledError:
            self._worker.cancel(ticket)
            raise

    def stream(
        self,
        text: str | None,
        voice: Any = None,
        *,
        mode: str = "exact",
        each_sentence: bool = True,
        language: str | None = None,
        markup: Markup = "plain",
        seed: int | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        wait: bool = False,
        **options: Any,
    ) -> Stream:
        """Speak a text of any length and hand out (n,) float32 chunks as they are ready; see `Stream`.

        Args:
            text: spoken sentence by sentence, the next one while the one before is heard.
            voice: as of `Bark.generate`; without one, the first sentence's is kept for the rest.
            mode: "exact" for the samples of `generate`, or "low_latency" for the first of them sooner; what that
                changes is in docs/streaming.md.
            each_sentence: False for one utterance, of up to 256 tokens; semantic tokens (`semantic=`) are one, too.
            language: of the sentences, "en", "de" and so on; None for the voice's, or else by the script.
            markup: what the text is written in, "plain" or "markdown", see `barkfast.normalize.normalize`.
            seed: of the first sentence; the others count on from it.
            deadline_s: seconds from now until when all of it must have been made.
            wait: for a place in the queue, if that is full. A text keeps its place from its first sentence to its last.

        The other arguments and the errors are those of `generate`. An engine does not bound the length of a text.
        """
        check_mode(mode)
        asked = dict(options, stream=mode, priority=priority)
        how: dict[str, Any] = {"each_sentence": each_sentence, "language": language, "markup": markup, "seed": seed}
        lines = Lines(self._bark, text, voice, **how, options=asked)
        return Stream(self._intake, lines, deadline_s=deadline_s, wait=wait)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, and wait until all that was accepted has ended; False if that took more than `timeout_s`.

        Streams are accepted requests: a reader who never comes keeps this waiting.
        """
        self._intake.places.close(EngineClosed("the engine is being drained and takes no new requests"))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._intake.places.wait_until_empty(), timeout_s)
        return self._intake.places.empty

    async def close(self) -> None:
        """End every request with EngineClosed, and the thread, which finishes its round. Once or more often."""
        self._shut("the engine was closed")
        if self._loop is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._worker.join)

    def _build(self) -> Scheduler:
        """The scheduler and all networks, in the thread that is going to use them."""
        components = self._bark.components
        scheduler = Scheduler(components, self._bark.layout, n_slots=self.n_slots, owner="an Engine")
        try:
            for name in COMPONENTS:
                components.load(name)
        except BaseException:
            scheduler.close()
            raise
        return scheduler

    def _post(self, call: Callable[..., None], *args: Any) -> None:
        """Hand a call from the worker's thread to the event loop."""
        # A loop that was closed has no one left who waits.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *args)

    def _hear(self, dead: EngineDead | None) -> None:
        """The worker says that it is ready, or dead."""
        if dead is not None:
            self._intake.places.close(dead)
        if self._ready is None or self._ready.done():
            return
        if dead is None:
            self._intake.loop = self._loop
            self._ready.set_result(None)
        else:
            # A model that cannot be loaded says so itself.
            self._ready.set_exception(dead.__cause__ if isinstance(dead.__cause__, BarkfastError) else dead)

    def _shut(self, why: str) -> None:
        self._intake.close(EngineClosed(why))
        self._worker.stop()
