"""The way of a request from the event loop to the worker: a place, a thread that reads it, a ticket."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from barkfast.checks import check_seconds
from barkfast.engine.places import Places, Stay
from barkfast.engine.request import Request
from barkfast.engine.sinks import Sink
from barkfast.engine.ticket import Outcome, Ticket
from barkfast.engine.worker import Worker
from barkfast.errors import EngineClosed, QueueFull

T = TypeVar("T")


class Intake:
    """Takes requests from one event loop, and reads them in threads, where texts and voices may take their time.

    Args:
        room: places that may be taken.
        most_unread: chunks of a stream that may lie unread before its utterance waits for its reader.
    """

    def __init__(self, worker: Worker, room: int, most_unread: int) -> None:
        self.worker, self.places = worker, Places(room)
        # Once the worker is ready: the event loop that it serves.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._most_unread = most_unread
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="barkfast-reader")

    async def enter(self, deadline_s: float | None, wait: bool) -> Stay:
        """Take a place in the queue. Errors: EngineClosed, QueueFull, DeadlineExceeded; InputError for no deadline."""
        if self.loop is None:
            self.places.check_open()
            raise EngineClosed("the engine has not been started; use `async with engine:` or `await engine.start()`")
        if asyncio.get_running_loop() is not self.loop:
            raise EngineClosed("the engine belongs to another event loop; make one for this")
        deadline = None if deadline_s is None else time.monotonic() + check_seconds("deadline_s", deadline_s)
        try:
            return await self.places.take(wait, deadline)
        except QueueFull:
            self.worker.tally.refused += 1
            raise

    async def read(self, call: Callable[[], T]) -> T:
        """Make a call in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    async def submit(self, stay: Stay, make: Callable[[], Request], sink: Sink, follows: bool = False) -> Ticket:
        """Make a request in a thread, and pass it to the worker. Errors: those of `make`; EngineClosed, EngineDead."""

        def read() -> tuple[Request, Any]:
            request = make()
            return request, self.worker.tokenize(request)

        continues = stay.used
        stay.enter()
        try:
            request, text_ids = await self.read(read)
            ticket = Ticket(request, text_ids, sink.put, partial(self._end, stay, sink), self._most_unread)
            ticket.follows, ticket.continues = follows, continues
            self.worker.submit(ticket)
        except BaseException:
            stay.leave()
            raise
        return ticket

    def close(self, why: EngineClosed) -> None:
        """Take nothing more."""
        self.places.close(why)
        self._readers.shutdown(wait=False)

    @staticmethod
    def _end(stay: Stay, sink: Sink, outcome: Outcome) -> None:
        """A ticket ended."""
        stay.leave()
        sink.end(outcome)
