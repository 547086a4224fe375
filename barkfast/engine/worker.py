"""The thread that runs an engine's rounds: it owns the scheduler, and nothing else touches the networks."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from barkfast.engine.results import AudioChunk, Counters, Done, Event
from barkfast.engine.scheduler import Scheduler
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineDead
from barkfast.options import Request

logger = logging.getLogger(__name__)

# How a request ends: a Generation, its error, or None where its caller cancelled it.
Outcome = Any


def copy_error(error: EngineClosed | EngineDead) -> EngineClosed | EngineDead:
    """The same error as a new object, since each is raised in another place."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


class PendingRequest:
    """A request in the worker, and the callbacks of its caller.

    Args:
        text_ids: of its text, from `Scheduler.tokenize`.
        on_chunk: receives (n,) float32 samples of a stream, in order.
        on_end: receives the outcome, once, after all chunks.
        most_unread: chunks that may be unread; with so many the utterance is parked until some are read.
        in_stream: as of Scheduler.add.

    Callbacks run where the worker's `post` puts them. Attributes that may change belong to the worker.
    """

    def __init__(
        self,
        request: Request,
        text_ids: Any,
        on_chunk: Callable[[Any], None],
        on_end: Callable[[Outcome], None],
        most_unread: int = 8,
        **in_stream: Any,
    ) -> None:
        self.request, self.text_ids = request, text_ids
        self.on_chunk, self.on_end, self.most_unread = on_chunk, on_end, most_unread
        self.in_stream = in_stream
        self.utterance: Any = None
        self.unread = 0
        self.parked = self.ended = False
        self.arrived_s = time.monotonic()
        self.first_chunk_s: float | None = None

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.request.deadline is not None and time.monotonic() >= self.request.deadline


class Worker:
    """Takes requests from any thread, advances them round by round, and reports to their callers.

    Args:
        build: makes the scheduler, in the worker's thread, which also closes it.
        post: passes a call to the callers' thread, in order, without waiting.

    Calls take effect between two rounds. An error of `build` or of a round ends the worker and every request with
    EngineDead: a round raises only where the device is lost for all.
    """

    def __init__(self, build: Callable[[], Scheduler], post: Callable[..., None]) -> None:
        self.counters = Counters()
        # Why it takes no more requests, once it does not.
        self.end: EngineClosed | EngineDead | None = None
        self._build, self._post = build, post
        self._pending: dict[Any, PendingRequest] = {}
        self._inbox: deque[tuple[Callable[..., None], PendingRequest | None]] = deque()
        self._scheduler: Scheduler
        # Guards the inbox and `end`: a request is either taken or refused, never left in the inbox.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._on_state: Callable[[EngineDead | None], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="barkfast-engine", daemon=True)

    def start(self, on_state: Callable[[EngineDead | None], None]) -> None:
        """Start. `on_state` receives, through `post`, None once all is loaded; later, or instead, the fatal error."""
        self._on_state = on_state
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it takes requests and can run them."""
        return self.end is None and self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def tokenize(self, request: Request) -> Any:
        """As Scheduler.tokenize, in the calling thread; once all is loaded."""
        return self._scheduler.tokenize(request)

    def submit(self, pending: PendingRequest) -> None:
        """Take a request. Raises: EngineClosed, EngineDead."""
        with self._lock:
            if self.end is not None:
                raise copy_error(self.end)
            self.counters.accepted += 1
            self._inbox.append((self._start, pending))
        self._wake.set()

    def cancel(self, pending: PendingRequest) -> None:
        """End a request that nobody waits for; no effect if it has ended."""
        self._call(self._cancel, pending)

    def mark_read(self, pending: PendingRequest) -> None:
        """Count one chunk of a request as read."""
        self._call(self._count_read, pending)

    def promote(self, pending: PendingRequest) -> None:
        """The consumer of a prefetched request waits for its audio now."""
        self._call(self._promote, pending)

    def stop(self) -> None:
        """End every request and the thread."""
        self._call(self._stop, None)

    def _call(self, call: Callable[..., None], pending: PendingRequest | None) -> None:
        """Make a call between two rounds; no effect once the worker has ended."""
        with self._lock:
            if self.end is None:
                self._inbox.append((call, pending))
        self._wake.set()

    def _run(self) -> None:
        ready = False
        try:
            self._scheduler = self._build()
            ready = True
            self._post(self._on_state, None)
            while self.end is None:
                self._run_once(self._scheduler)
            self._scheduler.close()
        except BaseException as error:
            # Of any kind: in this thread nobody else sees it, and the callers wait.
            if ready:
                logger.exception("the serving engine failed")
            dead = EngineDead(f"the serving engine failed ({type(error).__name__}: {error}); start a new one")
            dead.__cause__ = error
            self._finish_all(dead)
            self._post(self._on_state, dead)
            if ready:
                self._close_failed()

    def _close_failed(self) -> None:
        """Free what can be freed after an error, which has been reported."""
        try:
            self._scheduler.close()
        except Exception:
            # Of any kind: a lost device fails in every call.
            logger.warning("the networks of the failed engine could not be freed", exc_info=True)

    def _run_once(self, scheduler: Scheduler) -> None:
        """Make the calls of the inbox, then one round; sleep where there is nothing to do."""
        self._wake.clear()
        while self._inbox:
            call, pending = self._inbox.popleft()
            call() if pending is None else call(pending)
        for pending in [pending for pending in self._pending.values() if pending.late]:
            self._expire(pending)
        if self.end is not None:
            return
        if scheduler.idle:
            self._wake.wait(self._time_to_next_deadline())
            return
        self.counters.begin_round()
        events = scheduler.round()
        self.counters.end_round()
        for event in events:
            self._report(event)

    def _time_to_next_deadline(self) -> float | None:
        """Seconds; None without any. Parked streams have deadlines, too."""
        deadlines = [p.request.deadline for p in self._pending.values() if p.request.deadline is not None]
        return min(max(0.0, min(deadlines) - time.monotonic()), threading.TIMEOUT_MAX) if deadlines else None

    def _report(self, event: Event) -> None:
        pending = self._pending.get(event.utterance)
        if pending is None:
            return
        if isinstance(event, AudioChunk):
            self._post_chunk(pending, event)
        elif isinstance(event, Done):
            self.counters.count_audio(event.result.duration, pending.arrived_s, pending.first_chunk_s)
            self._finish(pending, "done", event.result)
        else:
            self._finish(pending, "failed", event.error)

    def _post_chunk(self, pending: PendingRequest, chunk: AudioChunk) -> None:
        """Post a chunk; park the utterance if its consumer has too many unread."""
        if pending.first_chunk_s is None:
            pending.first_chunk_s = time.monotonic()
        pending.unread += 1
        self._post(pending.on_chunk, chunk.audio)
        if pending.unread >= pending.most_unread and not pending.parked:
            self._park(pending, True)

    def _park(self, pending: PendingRequest, parked: bool) -> None:
        pending.parked = parked
        self.counters.parked += 1 if parked else -1
        (self._scheduler.park if parked else self._scheduler.resume)(pending.utterance)

    def _count_read(self, pending: PendingRequest) -> None:
        pending.unread -= 1
        if pending.parked and not pending.ended and pending.unread < pending.most_unread:
            self._park(pending, False)

    def _start(self, pending: PendingRequest) -> None:
        if pending.late:
            self._expire(pending)
            return
        try:
            pending.utterance = self._scheduler.add(pending.request, pending.text_ids, **pending.in_stream)
        except Exception as error:
            # Nothing was done for it yet, so nothing else is affected: of any kind, the error is its own.
            self._finish(pending, "failed", error)
        else:
            self._pending[pending.utterance] = pending

    def _promote(self, pending: PendingRequest) -> None:
        if pending.utterance is not None:
            pending.utterance.prefetched = False

    def _cancel(self, pending: PendingRequest) -> None:
        if not pending.ended:
            self._free(pending)
            self._finish(pending, "cancelled", None)

    def _expire(self, pending: PendingRequest) -> None:
        self._free(pending)
        waited = time.monotonic() - pending.arrived_s
        hint = "give it longer, or the engine less to do"
        if pending.parked:
            hint = f"{pending.unread} of its chunks lie unread: its reader is too slow"
        late = DeadlineExceeded(f"the request was not done by its deadline, {waited:.3g} s after it came; {hint}")
        self._finish(pending, "late", late)

    def _free(self, pending: PendingRequest) -> None:
        """Free what a request holds in the scheduler."""
        if pending.utterance is not None:
            self._scheduler.cancel(pending.utterance)

    def _finish(self, pending: PendingRequest, kind: str, outcome: Outcome) -> None:
        """End a request, which happens once, and report it."""
        pending.ended = True
        self.counters.count_end(kind)
        if pending.parked:
            self.counters.parked -= 1
        self._pending.pop(pending.utterance, None)
        self._post(pending.on_end, outcome)

    def _stop(self) -> None:
        self._finish_all(EngineClosed("the engine was closed"))

    def _finish_all(self, end: EngineClosed | EngineDead) -> None:
        """Take no more requests, and end those that are there."""
        with self._lock:
            self.end = end
            waiting = [pending for call, pending in self._inbox if call == self._start and pending is not None]
            self._inbox.clear()
        kind = "cancelled" if isinstance(end, EngineClosed) else "failed"
        for pending in [*self._pending.values(), *waiting]:
            self._finish(pending, kind, copy_error(end))
