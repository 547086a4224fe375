"""One scheduler for all threads that call a Bark: they share it, and wait for one another's rounds in turn."""

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from barkfast.components import Components
from barkfast.engine.events import Chunk, Done, Event, Failed
from barkfast.engine.request import Request
from barkfast.engine.scheduler import Scheduler
from barkfast.engine.task import Task
from barkfast.engine.utterance import Utterance
from barkfast.errors import EngineError
from barkfast.locks import FairLock

# How long a caller who is alone draws tokens before looking up again, in seconds.
ALONE_S = 0.05


class SharedScheduler:
    """Opens a scheduler with the first session that is asked for, and closes it with the last.

    Any thread may use it. A round of the scheduler is the longest that one thread keeps the others waiting.
    """

    def __init__(self, components: Components) -> None:
        self.components = components
        self.scheduler: Scheduler | None = None
        self.sessions: list[Session] = []
        self._lock = FairLock()
        # Sessions that were closed, to be ended by whoever has the lock.
        self._closed: deque[Session] = deque()
        _all.add(self)

    @property
    def busy(self) -> bool:
        """Whether somebody has a session, so that the networks have other work."""
        return bool(self.sessions)

    def open(self, n_slots: int) -> "Session":
        """A session of one's own; the scheduler has `n_slots` slots, or those that it had when it was opened.

        Errors: EngineError while an Engine has the networks, and without memory for the slots.
        """
        with self.exclusive():
            if self.scheduler is None:
                self.scheduler = Scheduler(
                    self.components,
                    self.components.checkpoint().layout,
                    n_slots=max(n_slots, self.components.n_slots),
                    owner="calls in other threads, or a stream that was not read to its end",
                )
            session = Session(self, self.scheduler)
            self.sessions.append(session)
            return session

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """In the block no other thread uses the scheduler."""
        self._lock.acquire()
        try:
            yield
        finally:
            self._end_closed()
            self._lock.release()
            self._settle()

    def close(self, session: "Session") -> None:
        """End a session now, or as soon as the round is done that is under way; never waits.

        So a finalizer may call it, which runs in any thread at any time, that thread's own round included.
        """
        self._closed.append(session)
        self._settle()

    def _settle(self) -> None:
        """End what was closed, unless somebody has the lock, who then does it."""
        while self._closed and self._lock.acquire(blocking=False):
            try:
                self._end_closed()
            finally:
                self._lock.release()

    def _end_closed(self) -> None:
        while self._closed:
            session = self._closed.popleft()
            if session not in self.sessions:
                continue
            self.sessions.remove(session)
            if self.scheduler is not None:
                for task in session.tasks:
                    self.scheduler.cancel(task)
            session.tasks.clear()
            if not self.sessions:
                self._shut()

    def _shut(self) -> None:
        """Close the scheduler, behind its last session, or because it failed."""
        scheduler, self.scheduler = self.scheduler, None
        if scheduler is not None:
            scheduler.close()

    def round(self) -> None:
        """One round of the scheduler for everybody: each event goes to the session of its task. With the lock.

        An error that makes the device useless for all is raised here, and ends everybody else's tasks.
        """
        if self.scheduler is None:
            return
        alone = len(self.sessions) == 1 and not self._lock.n_waiting
        try:
            events = self.scheduler.round(ALONE_S if alone else 0.0)
        except BaseException as error:
            for session in self.sessions:
                session.abandon(error)
            self._shut()
            raise
        for event in events:
            for session in self.sessions:
                session.deliver(event)

    def after_fork(self) -> None:
        """In a forked child: begin anew. Threads and sessions of the parent are not there."""
        in_use = bool(self.sessions) or self._lock.held
        self._lock = FairLock()
        self._closed.clear()
        for session in self.sessions:
            session.lost = True
        self.sessions, self.scheduler = [], None
        self.components.after_fork(in_use)


_all: "weakref.WeakSet[SharedScheduler]" = weakref.WeakSet()


def _after_fork() -> None:
    for shared in list(_all):
        shared.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Session:
    """One caller's part of a shared scheduler: used as the scheduler itself, it has this caller's tasks only.

    Whoever runs a round works for all: their events wait until they ask.
    """

    def __init__(self, shared: SharedScheduler, scheduler: Scheduler) -> None:
        self.tasks: set[Task] = set()
        # Whether it was opened by the process that this one was forked from.
        self.lost = False
        self._shared, self._scheduler = shared, scheduler
        self._events: deque[Event] = deque()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Tasks under way."""
        return len(self.tasks)

    @property
    def n_slots(self) -> int:
        """Tasks at a time, those of others included."""
        return self._scheduler.n_slots

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and nothing waits to be told."""
        return not self._events and all(task.parked for task in self.tasks)

    def add(self, request: Request) -> Utterance:
        """As Scheduler.add. Errors: moreover EngineError once the scheduler has failed."""
        # A text may be long: it is not read while others wait.
        text_ids = self._scheduler.tokenize(request)
        with self._open_scheduler() as scheduler:
            utterance = scheduler.add(request, text_ids)
            self.tasks.add(utterance)
            return utterance

    def add_task(self, task: Task) -> None:
        """As Scheduler.add_task. Errors: as `add`."""
        with self._open_scheduler() as scheduler:
            scheduler.add_task(task)
            self.tasks.add(task)

    @contextmanager
    def _open_scheduler(self) -> Iterator[Scheduler]:
        """The scheduler, for oneself. Errors: EngineError if it is not there any more."""
        self._check_process()
        with self._shared.exclusive():
            if self._shared.scheduler is not self._scheduler:
                raise EngineError("the networks failed, and what was under way with them; begin anew")
            yield self._scheduler

    def _check_process(self) -> None:
        if self.lost:
            raise EngineError(
                "this stream or batch was begun before the process was forked; begin it anew in the child"
            )

    def round(self) -> list[Event]:
        """What came of one's tasks since it was asked last; if nothing did, do a round of work first."""
        self._check_process()
        with self._shared.exclusive():
            if not self._events and self.tasks:
                self._shared.round()
            events = list(self._events)
            self._events.clear()
            return events

    def cancel(self, task: Task) -> None:
        """As Scheduler.cancel; nothing more is told of it."""
        with self._shared.exclusive():
            self._scheduler.cancel(task)
            self.tasks.discard(task)
            self._events = deque(event for event in self._events if event.task is not task)

    def park(self, task: Task) -> None:
        """As Scheduler.park."""
        with self._shared.exclusive():
            self._scheduler.park(task)

    def resume(self, task: Task) -> None:
        """As Scheduler.resume."""
        with self._shared.exclusive():
            self._scheduler.resume(task)

    def close(self) -> None:
        """Cancel what is under way, and go. Once or more often, from any thread."""
        self._shared.close(self)

    def deliver(self, event: Event) -> None:
        """Keep an event, if it is of one of this caller's tasks."""
        if event.task in self.tasks:
            self._events.append(event)
            if not isinstance(event, Chunk):
                self.tasks.discard(event.task)

    def abandon(self, error: BaseException) -> None:
        """End all tasks, since the scheduler has failed with `error`."""
        for task in list(self.tasks):
            failure = EngineError(f"the networks failed in the middle of other work: {type(error).__name__}: {error}")
            self.deliver(Failed(task, failure))

    # --- for those who wait until it is done

    def wait(self, task: Task, on_round: Callable[[Task], None] | None = None) -> Any:
        """Work until a task of this session has ended; its result. Errors: its own.

        Args:
            on_round: called after each round.
        """
        while True:
            events = self.round()
            if on_round is not None:
                on_round(task)
            for event in events:
                if event.task is not task or isinstance(event, Chunk):
                    continue
                if isinstance(event, Failed):
                    raise event.error
                return event.result

    def run(self, makers: Iterable[Callable[[], Request]]) -> list[Any]:
        """Speak any number of requests, made when their turn comes; a Generation, or its own error, for each."""
        results: list[Any] = []
        indices: dict[Task, int] = {}
        waiting = enumerate(makers)
        more = True
        while more or indices:
            # A few more than there are slots, so that one is ready when a slot is free.
            while more and len(indices) < 2 * max(1, self.n_slots):
                index, make = next(waiting, (0, None))
                if make is None:
                    more = False
                    break
                results.append(None)
                try:
                    indices[self.add(make())] = index
                except Exception as error:
                    # Whatever it is, nothing was done for it yet.
                    results[index] = error
            for event in self.round():
                if isinstance(event, Done):
                    results[indices.pop(event.task)] = event.result
                elif isinstance(event, Failed):
                    results[indices.pop(event.task)] = event.error
        return results

    def listen(self, request: Request) -> Iterator[np.ndarray]:
        """Speak one request as a stream of (n,) float32 samples. Errors: its own."""
        utterance = self.add(request)
        while True:
            for event in self.round():
                if event.task is not utterance:
                    continue
                if isinstance(event, Chunk):
                    yield event.audio
                elif isinstance(event, Failed):
                    raise event.error
                else:
                    return
