"""Audio chunks as they are ready, for an asyncio consumer."""

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from barkfast.engine.admission import Admission, Reservation
from barkfast.engine.long import DROPPED
from barkfast.engine.results import Generation, SpokenSentence
from barkfast.engine.segments import (
    RETRIES,
    STREAM_SEGMENTS,
    Entry,
    Segment,
    SegmentQueue,
    VoiceState,
    check_sentences,
    join_live,
    sentence_segments,
    voice_of,
)
from barkfast.engine.shared import Model
from barkfast.engine.worker import Outcome, PendingRequest
from barkfast.longform.chunks import Chunk
from barkfast.longform.joining import LiveJoiner
from barkfast.longform.sentences import language_of
from barkfast.options import Request, StreamedText


class StreamText:
    """The segments of a stream's text, and their requests. One call at a time, from any thread."""

    def __init__(self, model: Model, asked: StreamedText) -> None:
        self.layout = model.layout
        self.voice = VoiceState(asked.voice)
        self._model, self._asked = model, asked
        self._segments: Iterator[Segment] | None = None

    def next(self) -> Segment:
        """The next segment; there is one after each that is not the last. Raises: InputError."""
        asked = self._asked
        if not asked.split:
            return Segment(Chunk(""), self.voice, 0, last=True, whole=True)
        if self._segments is None:
            language = asked.language or language_of(asked.voice)
            check_sentences(asked.text, language, asked.seed)
            self._segments = sentence_segments(self._model, asked.text, self.voice, language, asked.markup)
        return next(self._segments)

    def request(self, segment: Segment, deadline: float | None) -> Request:
        """The request of a segment. Raises: the errors of `Bark.request`."""
        if segment.whole:
            return self._model.resolve(self._asked.whole(deadline=deadline))
        request = segment.request(self._model, self._asked.request_options() | {"deadline": deadline})
        # Loaded once for all.
        self.voice.voice = request.voice
        return request


class Stream:
    """The chunks of a text, (n,) float32 each: `async for chunk in stream`. Made by `Engine.stream`.

    The first sentence is submitted by `async with stream`, or else with the first chunk; its errors, QueueFull among
    them, are raised there. The next one is submitted when some audio of the one before was read. Errors of later work
    are raised in place of its chunks; those of a later sentence name it. Leaving the `async with`, `aclose()`, dropping
    the stream, or cancelling a task that waits for a chunk ends all of it within one round of work. While too many
    chunks are unread, its utterances wait, and no others.

    `generation` holds the utterance that was read to its end last: of one utterance the whole, as `generate` would have
    returned it; of several the last sentence so far.

    Attributes:
        sentences: those whose audio has begun, in order; of one utterance none.
        timings: stage -> seconds, as in Generation, of all that was read to its end.
        voice: the first sentence that can be used as a voice, once it was read to its end.
        queue_wait_s: seconds from the submission to the start of work; None before the first chunk.
    """

    def __init__(self, admission: Admission, text: StreamText, *, deadline_s: float | None, wait: bool) -> None:
        self.generation: Generation | None = None
        self.sentences: list[SpokenSentence] = []
        self.timings: dict[str, float] = {}
        self.voice: dict[str, np.ndarray] | None = None
        self.queue_wait_s: float | None = None
        self._n_samples = 0
        # The segment whose audio was read last.
        self._segment: Segment | None = None
        self._admission, self._text = admission, text
        self._deadline_s, self._wait = deadline_s, wait
        promote = admission.worker.promote
        self._queue = SegmentQueue(text.layout, STREAM_SEGMENTS, RETRIES, live=True, promote=promote)
        self._joiner = LiveJoiner(text.layout.sample_rate)
        # Held by the callbacks of the requests, which must not hold the stream: it ends when its consumer drops it.
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        # One for the whole text: between two sentences it does not queue again.
        self._reservation: Reservation | None = None
        self._submitting: asyncio.Task[None] | None = None
        self._closed = False

    def _is_closed(self) -> bool:
        """Whether it was closed, maybe by another task meanwhile."""
        return self._closed

    async def open(self) -> None:
        """Submit the first sentence, as `async with stream` does. Raises: as `Engine.generate`."""
        if self._reservation is not None or self._is_closed():
            return
        self._loop = asyncio.get_running_loop()
        try:
            self._reservation = await self._admission.reserve(self._deadline_s, self._wait)
            await self._submit(self._reservation)
            self._queue.raise_if_not_started()
        except BaseException:
            # Also where the task is cancelled.
            self._end()
            raise
        if self._is_closed():
            self._end()

    async def __aenter__(self) -> "Stream":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> np.ndarray:
        await self.open()
        try:
            while not self._closed:
                samples = self._take()
                if samples is None:
                    await self._news.wait()
                elif len(samples):
                    return samples
        except BaseException:
            # Also where the task is cancelled.
            await self.aclose()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End all that is in progress; unread chunks are gone. May be called again."""
        submitting, self._submitting = self._submitting, None
        self._end()
        if submitting is not None:
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)

    def _take(self) -> np.ndarray | None:
        """The next samples, (n,) float32, maybe none; None where the stream has to wait."""
        self._news.clear()
        taken = self._queue.take()
        if taken is not None and isinstance(taken[1], np.ndarray):
            self._admission.worker.mark_read(taken[0].handle)
        idle = self._submitting is None or self._submitting.done()
        if self._reservation is not None and idle and self._queue.wants_driver:
            self._submitting = asyncio.create_task(self._submit(self._reservation))
        if taken is None:
            return None
        entry, output = taken
        if isinstance(output, np.ndarray):
            self._note_start(entry)
        else:
            self.generation = output
            if output is not None and self.voice is None:
                self.voice = voice_of(output, self._text.layout)
            for stage, seconds in (output.timings if output else {}).items():
                self.timings[stage] = self.timings.get(stage, 0.0) + seconds
        if self._queue.done:
            self._end()
        samples = join_live(self._joiner, entry.segment, output)
        self._n_samples += len(samples)
        return samples

    def _note_start(self, entry: Entry) -> None:
        """Note where the audio of an entry begins, and how long the first one waited."""
        if self.queue_wait_s is None:
            self.queue_wait_s = max(0.0, entry.handle.utterance.began_s - entry.handle.arrived_s)
        if entry.segment is not self._segment and not entry.segment.whole:
            start_s = self._n_samples / self._text.layout.sample_rate
            self.sentences.append(SpokenSentence(entry.segment.chunk.text, start_s))
        self._segment = entry.segment

    async def _submit(self, reservation: Reservation) -> None:
        """Read and submit as many segments as the queue wants; their errors go to the queue."""
        queue, news = self._queue, self._news
        while queue.wants_driver and not self._is_closed():
            if queue.wants_segment:
                try:
                    queue.push(await self._admission.read(self._text.next))
                except Exception as error:
                    # Of any kind: the user's iterable is read here. The consumer gets it in place of a chunk.
                    queue.fail(error, self._text.voice)
                    news.set()
                    return
            if (entry := queue.next_to_submit()) is None:
                continue
            request = partial(self._text.request, entry.segment, reservation.deadline)
            receive, end = _callbacks(queue, entry, news)
            submit = self._admission.submit
            try:
                entry.handle = await submit(reservation, request, receive, end, entry.prefetched)
            except Exception as error:
                # Of any kind, as above.
                queue.end(entry, error, final=True)
                news.set()
            else:
                if self._is_closed():
                    self._admission.worker.cancel(entry.handle)

    def _end(self) -> None:
        """Cancel what is in progress."""
        self._closed = True
        self._news.set()
        _cancel(self._admission.worker.cancel, self._queue.close(), self._reservation)

    def __del__(self) -> None:
        if self._reservation is None or self._closed or self._loop is None:
            return
        warnings.warn(DROPPED, ResourceWarning, stacklevel=2, source=self)
        # Not here: this may run anywhere, with any lock held. A closed loop has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            cancel = self._admission.worker.cancel
            self._loop.call_soon_threadsafe(_cancel, cancel, self._queue.close(), self._reservation)


def _callbacks(
    queue: SegmentQueue, entry: Entry, news: asyncio.Event
) -> tuple[Callable[[np.ndarray], None], Callable[[Outcome], None]]:
    """What receives an entry's chunks and its outcome in the event loop."""

    def receive(chunk: np.ndarray) -> None:
        entry.chunks.append(chunk)
        news.set()

    def end(outcome: Outcome) -> None:
        if outcome is not None:
            queue.end(entry, outcome)
        news.set()

    return receive, end


def _cancel(
    cancel: Callable[[PendingRequest], None], pending: list[PendingRequest], reservation: Reservation | None
) -> None:
    for request in pending:
        cancel(request)
    if reservation is not None:
        reservation.close()
