"""The thread that does an engine's work: it owns the scheduler, and nothing else touches the networks."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from barkfast.engine.request import Request
from barkfast.engine.scheduler import Chunk, Done, Event, Scheduler
from barkfast.engine.stats import Tally
from barkfast.engine.ticket import Outcome, Ticket, again
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineDead

logger = logging.getLogger(__name__)


class Worker:
    """Takes tickets from any thread, advances them round by round, and tells those who wait.

    Args:
        build: makes the scheduler, in the thread that is going to use it and to close it.
        post: hands a call to the thread of those who wait, in order, and never waits itself.

    Whatever is asked of it takes effect between two rounds. An error that `build` or a round raises ends the worker and
    every ticket with EngineDead: a round raises nothing but what makes the device useless for all.
    """

    def __init__(self, build: Callable[[], Scheduler], post: Callable[..., None]) -> None:
        self.tally = Tally()
        # Why it takes no more tickets, once it does not.
        self.end: EngineClosed | EngineDead | None = None
        self._build, self._post = build, post
        self._tickets: dict[Any, Ticket] = {}
        self._inbox: deque[tuple[Callable[..., None], Ticket | None]] = deque()
        self._scheduler: Scheduler
        # For the inbox and `end`: a ticket is either taken in by the thread or turned away, never left lying.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._on_state: Callable[[EngineDead | None], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="barkfast-engine", daemon=True)

    def start(self, on_state: Callable[[EngineDead | None], None]) -> None:
        """Begin; `on_state` is told, through `post`, None when all is loaded, and later, or instead, why it is dead."""
        self._on_state = on_state
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it takes tickets and can work on them."""
        return self.end is None and self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def tokenize(self, request: Request) -> Any:
        """As Scheduler.tokenize; once all is loaded, in the thread that calls it."""
        return self._scheduler.tokenize(request)

    def submit(self, ticket: Ticket) -> None:
        """Take a ticket in. Errors: EngineClosed, EngineDead."""
        with self._lock:
            if self.end is not None:
                raise again(self.end)
            self.tally.accepted += 1
            self._inbox.append((self._take, ticket))
        self._wake.set()

    def cancel(self, ticket: Ticket) -> None:
        """End a ticket that nobody waits for any more; nothing if it has ended."""
        self._ask(self._drop, ticket)

    def read(self, ticket: Ticket) -> None:
        """One chunk of a ticket has been read."""
        self._ask(self._count_read, ticket)

    def lead(self, ticket: Ticket) -> None:
        """The reader of a ticket that followed another has come to it."""
        self._ask(self._lead, ticket)

    def stop(self) -> None:
        """Drop every ticket and end the thread."""
        self._ask(self._stop, None)

    def _ask(self, call: Callable[..., None], ticket: Ticket | None) -> None:
        """Have something done between two rounds; nothing where all has ended."""
        with self._lock:
            if self.end is None:
                self._inbox.append((call, ticket))
        self._wake.set()

    def _run(self) -> None:
        ready = False
        try:
            self._scheduler = self._build()
            ready = True
            self._post(self._on_state, None)
            while self.end is None:
                self._turn(self._scheduler)
            self._scheduler.close()
        except BaseException as error:
            if ready:
                logger.exception("the serving engine failed")
            dead = EngineDead(f"the serving engine failed ({type(error).__name__}: {error}); start a new one")
            dead.__cause__ = error
            self._finish_all(dead)
            self._post(self._on_state, dead)
            if ready:
                # What can still be given back is; the error that counts has been told.
                with contextlib.suppress(Exception):
                    self._scheduler.close()

    def _turn(self, scheduler: Scheduler) -> None:
        """Do what was asked, then one round of work; sleep where there is none."""
        self._wake.clear()
        while self._inbox:
            call, ticket = self._inbox.popleft()
            call() if ticket is None else call(ticket)
        for ticket in [ticket for ticket in self._tickets.values() if ticket.late]:
            self._expire(ticket)
        if self.end is not None:
            return
        if scheduler.idle:
            self._wake.wait(self._time_to_next_deadline())
            return
        self.tally.begin_round()
        events = scheduler.round()
        self.tally.end_round()
        for event in events:
            self._tell(event)

    def _time_to_next_deadline(self) -> float | None:
        """Seconds; None without any. Streams that wait for their readers have deadlines, too."""
        deadlines = [t.request.deadline for t in self._tickets.values() if t.request.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _tell(self, event: Event) -> None:
        ticket = self._tickets.get(event.task)
        if ticket is None:
            return
        if isinstance(event, Chunk):
            self._hand_over(ticket, event)
        elif isinstance(event, Done):
            self.tally.count_audio(event.result.duration, ticket.arrived_s, ticket.first_chunk_s)
            self._finish(ticket, "done", event.result)
        else:
            self._finish(ticket, "failed", event.error)

    def _hand_over(self, ticket: Ticket, chunk: Chunk) -> None:
        """Post a chunk; a reader who is so many behind has his utterance parked."""
        if ticket.first_chunk_s is None:
            ticket.first_chunk_s = time.monotonic()
        ticket.unread += 1
        self._post(ticket.on_chunk, chunk.audio)
        if ticket.unread >= ticket.most_unread and not ticket.parked:
            self._park(ticket, True)

    def _park(self, ticket: Ticket, parked: bool) -> None:
        ticket.parked = parked
        self.tally.parked += 1 if parked else -1
        (self._scheduler.park if parked else self._scheduler.resume)(ticket.utterance)

    def _count_read(self, ticket: Ticket) -> None:
        ticket.unread -= 1
        if ticket.parked and not ticket.ended and ticket.unread < ticket.most_unread:
            self._park(ticket, False)

    def _take(self, ticket: Ticket) -> None:
        if ticket.late:
            self._expire(ticket)
            return
        try:
            ticket.utterance = self._scheduler.add(ticket.request, ticket.text_ids)
        except Exception as error:
            # Nothing has been done for it yet, so nothing else can be harmed: whatever it is, it is this one's own.
            self._finish(ticket, "failed", error)
        else:
            ticket.utterance.follows, ticket.utterance.continues = ticket.follows, ticket.continues
            self._tickets[ticket.utterance] = ticket

    def _lead(self, ticket: Ticket) -> None:
        if ticket.utterance is not None:
            ticket.utterance.follows = False

    def _drop(self, ticket: Ticket) -> None:
        if not ticket.ended:
            self._leave(ticket)
            self._finish(ticket, "cancelled", None)

    def _expire(self, ticket: Ticket) -> None:
        self._leave(ticket)
        waited = time.monotonic() - ticket.arrived_s
        hint = "give it longer, or the engine less to do"
        if ticket.parked:
            hint = f"{ticket.unread} of its chunks lie unread: its reader is too slow"
        late = DeadlineExceeded(f"the request was not done by its deadline, {waited:.3g} s after it came; {hint}")
        self._finish(ticket, "late", late)

    def _leave(self, ticket: Ticket) -> None:
        """Free what a ticket has in the scheduler."""
        if ticket.utterance is not None:
            self._scheduler.cancel(ticket.utterance)

    def _finish(self, ticket: Ticket, kind: str, outcome: Outcome) -> None:
        """End a ticket, which happens once, and tell."""
        ticket.ended = True
        self.tally.count_end(kind)
        if ticket.parked:
            self.tally.parked -= 1
        self._tickets.pop(ticket.utterance, None)
        self._post(ticket.on_end, outcome)

    def _stop(self) -> None:
        self._finish_all(EngineClosed("the engine was closed"))

    def _finish_all(self, end: EngineClosed | EngineDead) -> None:
        """Take no more tickets, and end those that are there."""
        with self._lock:
            self.end = end
            asked = [ticket for call, ticket in self._inbox if call == self._take and ticket is not None]
            self._inbox.clear()
        kind = "cancelled" if isinstance(end, EngineClosed) else "failed"
        for ticket in [*self._tickets.values(), *asked]:
            self._finish(ticket, kind, again(end))
