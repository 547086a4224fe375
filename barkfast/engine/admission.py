"""The bounded queue in front of an engine: who may submit requests, and who waits."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from barkfast.checks import check_seconds
from barkfast.engine.worker import Outcome, PendingRequest, Worker, copy_error
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineDead, QueueFull
from barkfast.options import Request

T = TypeVar("T")


class Reservation:
    """One unit of an AdmissionQueue's capacity, held until it is closed and all requests in it have ended.

    Args:
        deadline: of all its requests, in seconds of time.monotonic().
    """

    def __init__(self, queue: "AdmissionQueue", deadline: float | None) -> None:
        self.deadline = deadline
        # Whether a request was started in it.
        self.used = False
        self._queue: AdmissionQueue | None = queue
        self._n_requests = 0
        self._closing = False

    def enter(self) -> None:
        """A request starts."""
        self.used = True
        self._n_requests += 1

    def leave(self) -> None:
        """A request has ended."""
        self._n_requests -= 1
        self._check()

    def close(self) -> None:
        """No more requests start in it. May be called again."""
        self._closing = True
        self._check()

    def _check(self) -> None:
        if self._closing and not self._n_requests and self._queue is not None:
            queue, self._queue = self._queue, None
            queue.release()


class AdmissionQueue:
    """A bounded number of reservations; callers wait in order of arrival. Belongs to one event loop.

    Args:
        capacity: reservations at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.n_reserved = capacity, 0
        # Why no more reservations are made, once that is so.
        self.closed: EngineClosed | EngineDead | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def empty(self) -> bool:
        """Whether there is no reservation."""
        return not self.n_reserved

    async def reserve(self, wait: bool, deadline: float | None) -> Reservation:
        """Make a reservation.

        Args:
            wait: wait for capacity, until `deadline`, in seconds of time.monotonic().

        Raises:
            QueueFull, DeadlineExceeded: there is no capacity, or none in time.
            EngineClosed, EngineDead: the queue was closed.
        """
        self.check_open()
        if self.n_reserved < self.capacity and not self._waiting:
            self.n_reserved += 1
            self._empty.clear()
            return Reservation(self, deadline)
        if not wait:
            raise QueueFull(
                f"the engine holds {self.n_reserved} requests, as many as it may; ask again later, or with wait=True"
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await asyncio.wait([granted], timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except asyncio.CancelledError:
            self._give_up(granted)
            raise
        if self.closed is not None or not granted.done():
            self._give_up(granted)
            self.check_open()
            raise DeadlineExceeded("no place in the engine's queue came free before the request's deadline")
        return Reservation(self, deadline)

    def release(self) -> None:
        """Return a reservation's capacity; the first waiting caller gets it."""
        while self._waiting:
            granted = self._waiting.popleft()
            if not granted.done():
                granted.set_result(None)
                return
        self.n_reserved -= 1
        if not self.n_reserved:
            self._empty.set()

    def close(self, why: EngineClosed | EngineDead) -> None:
        """Make no more reservations, also for those who wait. The first reason is kept."""
        if self.closed is None:
            self.closed = why
        while self._waiting:
            self._waiting.popleft().cancel()

    async def wait_until_empty(self) -> None:
        """Wait until there is no reservation."""
        await self._empty.wait()

    def _give_up(self, granted: asyncio.Future[None]) -> None:
        """Stop waiting; capacity that was granted at this moment goes to the next."""
        if granted.done() and not granted.cancelled():
            self.release()
        elif granted in self._waiting:
            self._waiting.remove(granted)

    def check_open(self) -> None:
        """Raise the reason why the queue was closed, if it was."""
        if self.closed is not None:
            raise copy_error(self.closed)


class Admission:
    """Admits requests of one event loop to a worker. Texts and voices are read in threads, since that takes time.

    Args:
        capacity: of the queue.
        most_unread: chunks of a stream that may be unread before its utterance waits for the consumer.
    """

    def __init__(self, worker: Worker, capacity: int, most_unread: int) -> None:
        self.worker, self.queue = worker, AdmissionQueue(capacity)
        # Once the worker is ready: the event loop that it serves.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._most_unread = most_unread
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="barkfast-reader")

    async def reserve(self, deadline_s: float | None, wait: bool) -> Reservation:
        """As AdmissionQueue.reserve, with a deadline in seconds from now. Raises: also InputError for the deadline."""
        if self.loop is None:
            self.queue.check_open()
            raise EngineClosed("the engine has not been started; use `async with engine:` or `await engine.start()`")
        if asyncio.get_running_loop() is not self.loop:
            raise EngineClosed("the engine belongs to another event loop; make one for this")
        deadline = None if deadline_s is None else time.monotonic() + check_seconds("deadline_s", deadline_s)
        try:
            return await self.queue.reserve(wait, deadline)
        except QueueFull:
            self.worker.counters.refused += 1
            raise

    async def read(self, call: Callable[[], T]) -> T:
        """Make a call in a reader thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    async def submit(
        self,
        reservation: Reservation,
        make: Callable[[], Request],
        on_chunk: Callable[[Any], None],
        on_end: Callable[[Outcome], None],
        prefetched: bool = False,
    ) -> PendingRequest:
        """Make a request in a reader thread, and pass it to the worker.

        Args:
            on_chunk, on_end: as PendingRequest; both are called in the event loop.
            prefetched: as of Utterance.

        Raises:
            EngineClosed, EngineDead: the worker has ended.
            Exception: the errors of `make`.
        """

        def read() -> tuple[Request, Any]:
            request = make()
            return request, self.worker.tokenize(request)

        continues_stream = reservation.used
        reservation.enter()
        try:
            request, text_ids = await self.read(read)
            end = partial(self._end, reservation, on_end)
            in_stream = {"prefetched": prefetched, "continues_stream": continues_stream}
            pending = PendingRequest(request, text_ids, on_chunk, end, self._most_unread, **in_stream)
            self.worker.submit(pending)
        except BaseException:
            # Also where the task is cancelled.
            reservation.leave()
            raise
        return pending

    def close(self, why: EngineClosed) -> None:
        """Admit nothing more."""
        self.queue.close(why)
        self._readers.shutdown(wait=False)

    @staticmethod
    def _end(reservation: Reservation, on_end: Callable[[Outcome], None], outcome: Outcome) -> None:
        reservation.leave()
        on_end(outcome)
