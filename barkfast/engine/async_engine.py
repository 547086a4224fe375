"""Many requests at once from an event loop: a bounded queue in front of a thread that does the work."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from barkfast.checks import check_count
from barkfast.engine.admission import Admission
from barkfast.engine.results import Generation, Stats
from barkfast.engine.scheduler import Scheduler
from barkfast.engine.shared import Model
from barkfast.engine.stream import Stream, StreamText
from barkfast.engine.worker import Outcome, Worker
from barkfast.errors import BarkfastError, EngineClosed, EngineDead
from barkfast.options import EngineSpeech, EngineStream, takes


class HasModel(Protocol):
    """What an Engine takes of a `Bark`."""

    model: Model


class Engine:
    """Serves many requests at once: they enter and leave between the steps of those in progress.

    `async with Engine(bark) as engine:` loads the networks and starts; leaving it ends what is in progress, so call
    `drain()` first where that matters. All methods belong to the event loop that started it. None of them blocks it:
    networks run in a thread of their own, texts and voices are read in others.

    Args:
        bark: a `Bark`, which belongs to the engine until that is closed; nothing else may generate with it.
        n_slots: utterances that are generated in a batch.
        queue_size: requests that may wait beyond those; further ones are refused, or wait with `wait=True`.
        stream_buffer: chunks of a stream that may be unread before its utterance waits for the consumer.

    Raises:
        InputError: a number is none of these.
    """

    def __init__(self, bark: HasModel, *, n_slots: int = 8, queue_size: int = 64, stream_buffer: int = 8) -> None:
        self.n_slots = check_count("n_slots", n_slots, 1, "utterances side by side")
        check_count("queue_size", queue_size, 0, "requests that may wait for a slot")
        check_count("stream_buffer", stream_buffer, 1, "chunks of a stream that may lie unread")
        self._model = bark.model
        self._worker = Worker(self._build, self._post)
        self._admission = Admission(self._worker, n_slots + queue_size, stream_buffer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Load the networks and start.

        Raises:
            EngineClosed: the engine was started or closed before.
            EngineError: the engine cannot run here, or other calls use the model.
            MissingFileError: the model is not on this machine, and cannot be fetched.
            CheckpointError: a file is damaged, of another format, or carries code.
        """
        if self._loop is not None or self._admission.queue.closed is not None:
            raise EngineClosed("the engine was started or closed before; make a new one")
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._worker.start(self._on_state)
        try:
            await self._ready
        except BaseException:
            # Also where the caller stopped waiting for the networks.
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
        return self._model.layout.sample_rate

    @property
    def healthy(self) -> bool:
        """Whether the worker thread runs. Does not wait for a round to finish."""
        return self._ready is not None and self._ready.done() and self._worker.alive

    @property
    def accepting(self) -> bool:
        """Whether new requests are taken: healthy, and neither draining nor closed."""
        return self.healthy and self._admission.queue.closed is None

    def stats(self) -> Stats:
        """Numbers about all requests so far."""
        return self._worker.counters.snapshot(self.healthy)

    @takes(EngineSpeech)
    async def generate(self, speech: EngineSpeech) -> Generation:
        """Speak a text, with the tokens and samples of a single `Bark.generate`.

        Cancelling the task that waits ends the request within one round of work.

        Returns:
            A Generation: (samples,) float32 audio, the tokens of each stage, and timings.

        Raises:
            QueueFull: the queue is full, and `wait` is False.
            DeadlineExceeded: it was not done within `deadline_s`.
            InputError: the text or another argument cannot be used, or the model ended at once.
            VoiceError: the voice is unknown or does not fit the model.
            EngineClosed: the engine was not started, is draining, or was closed meanwhile.
            EngineDead: the engine has failed for good, and accepts nothing any more.
        """
        result: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        reservation = await self._admission.reserve(speech.deadline_s, speech.wait)
        try:
            request = partial(self._model.resolve, speech.request(reservation.deadline))
            pending = await self._admission.submit(reservation, request, lambda _: None, partial(_set_result, result))
        finally:
            reservation.close()
        try:
            return await result
        except asyncio.CancelledError:
            self._worker.cancel(pending)
            raise

    @takes(EngineStream)
    def stream(self, asked: EngineStream) -> Stream:
        """Speak a text of any length; (n,) float32 chunks as they are ready, see `Stream`.

        The errors of `generate` are raised when the stream is opened or read. An engine does not bound the length of a
        text.

        Raises:
            InputError: at once for an argument that cannot be used.
        """
        return Stream(self._admission, StreamText(self._model, asked), deadline_s=asked.deadline_s, wait=asked.wait)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Accept nothing new, and wait until all that was accepted has ended.

        Streams count: a consumer that never reads keeps this waiting.

        Args:
            timeout_s: seconds to wait at most; None for no limit.

        Returns:
            Whether all have ended.
        """
        self._admission.queue.close(EngineClosed("the engine is being drained and takes no new requests"))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._admission.queue.wait_until_empty(), timeout_s)
        return self._admission.queue.empty

    async def close(self) -> None:
        """End every request with EngineClosed, and the thread after its round. May be called again."""
        self._shut("the engine was closed")
        if self._loop is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._worker.join)

    def _build(self) -> Scheduler:
        """The scheduler, with all networks loaded; called in the thread that uses them."""
        model = self._model
        scheduler = Scheduler(model.components, model.layout, n_slots=self.n_slots, owner="an Engine")
        try:
            model.load()
        except BaseException:
            # Of any kind: the caller never gets the scheduler.
            scheduler.close()
            raise
        return scheduler

    def _post(self, call: Callable[..., None], *args: Any) -> None:
        """Pass a call from the worker's thread to the event loop."""
        # In a closed loop nobody waits.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *args)

    def _on_state(self, dead: EngineDead | None) -> None:
        """The worker is ready, or dead."""
        if dead is not None:
            self._admission.queue.close(dead)
        if self._ready is None or self._ready.done():
            return
        if dead is None:
            self._admission.loop = self._loop
            self._ready.set_result(None)
        else:
            # The error of loading says what is wrong.
            self._ready.set_exception(dead.__cause__ if isinstance(dead.__cause__, BarkfastError) else dead)

    def _shut(self, why: str) -> None:
        self._admission.close(EngineClosed(why))
        self._worker.stop()


def _set_result(future: "asyncio.Future[Generation]", outcome: Outcome) -> None:
    """Pass an outcome to the caller, if it still waits."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    elif outcome is None:
        future.cancel()
    else:
        future.set_result(outcome)
