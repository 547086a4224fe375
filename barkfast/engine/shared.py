"""A model for all threads that call it: they share one scheduler, and run its rounds in turn."""

import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np

from barkfast.components import COMPONENTS, Components
from barkfast.config import Layout
from barkfast.engine.results import AudioChunk, Done, Event, Failed
from barkfast.engine.scheduler import Scheduler
from barkfast.engine.utterance import Utterance
from barkfast.errors import EngineError
from barkfast.locks import FairLock
from barkfast.options import Request, Voice
from barkfast.voices import PARTS, check_voice, load_voice
from barkfast.weights import Checkpoint

# Seconds of tokens that a caller draws in one round while no other thread waits.
SINGLE_S = 0.05


class Model:
    """What everything that generates needs of a Bark: its networks, its voices, and the scheduler all threads share.

    Args:
        components: the networks.
        voices: a folder of further voices.
    """

    def __init__(self, components: Components, voices: str | os.PathLike[str] | None = None) -> None:
        self.components, self.shared = components, SharedScheduler(components)
        self._voices = voices

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the weights, tokenizer and voices come from."""
        return self.components.checkpoint()

    @property
    def layout(self) -> Layout:
        """Token ids, rates and window lengths of the model."""
        return self.checkpoint.layout

    @property
    def tokenizer(self) -> Any:
        """The text network's tokenizer, loaded with the network."""
        return self.components.load("text")["tokenizer"]

    def load(self) -> None:
        """Load all four networks now."""
        for name in COMPONENTS:
            self.components.load(name)

    def load_voice(self, voice: Voice | None, stages: tuple[str, ...] = PARTS) -> Mapping[str, np.ndarray] | None:
        """Find a voice by name, path or dict, and check the arrays that `stages` use. Raises: VoiceError."""
        if voice is None:
            return None
        prompt = load_voice(voice, self.checkpoint, self._voices)
        if prompt is not None:
            check_voice(prompt, self.layout, stages)
        return prompt

    def request(self, text: str | None = None, voice: Voice | None = None, **options: Any) -> Request:
        """A Request with its voice loaded. Args: as barkfast.options.Request. Raises: InputError, VoiceError."""
        return self.resolve(Request(text, voice, **options))

    def resolve(self, request: Request) -> Request:
        """A request with its voice loaded. Loads no network; thread-safe. Raises: VoiceError."""
        return request if request.voice is None else replace(request, voice=self.load_voice(request.voice))

    def scheduler(self, n_slots: int | None = None) -> "Session":
        """A new session of the shared scheduler. Raises: as SharedScheduler.open."""
        return self.shared.open(self.components.n_slots if n_slots is None else n_slots)


class SharedScheduler:
    """Opens a scheduler with the first session, and closes it with the last.

    Thread-safe. A thread waits for another one's round at most.
    """

    def __init__(self, components: Components) -> None:
        self.components = components
        self.scheduler: Scheduler | None = None
        self.sessions: list[Session] = []
        self._lock = FairLock()
        # Closed sessions, to be ended by the next thread that holds the lock.
        self._closed: deque[Session] = deque()
        _all.add(self)

    @property
    def busy(self) -> bool:
        """Whether there is a session."""
        return bool(self.sessions)

    def open(self, n_slots: int) -> "Session":
        """A new session. The scheduler has `n_slots` slots, or as many as it was opened with.

        Raises:
            EngineError: an Engine has claimed the networks, or there is no memory for the slots.
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
        """Exclusive access to the scheduler."""
        self._lock.acquire()
        try:
            yield
        finally:
            self._end_closed()
            self._lock.release()
            self._settle()

    def close(self, session: "Session") -> None:
        """End a session now, or after the round in progress; never waits.

        A finalizer may call it: those run in any thread at any time, also during that thread's own round.
        """
        self._closed.append(session)
        self._settle()

    def _settle(self) -> None:
        """End closed sessions, unless another thread holds the lock and will do so."""
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
                for utterance in session.utterances:
                    self.scheduler.cancel(utterance)
            session.utterances.clear()
            if not self.sessions:
                self._shut()

    def _shut(self) -> None:
        """Close the scheduler: its last session has ended, or it failed."""
        scheduler, self.scheduler = self.scheduler, None
        if scheduler is not None:
            scheduler.close()

    def round(self) -> None:
        """One round for everybody: each event goes to the session of its utterance. The caller holds the lock.

        Raises:
            Exception: the device is lost. All utterances have failed.
        """
        if self.scheduler is None:
            return
        single = len(self.sessions) == 1 and not self._lock.n_waiting
        try:
            events = self.scheduler.round(SINGLE_S if single else 0.0)
        except BaseException as error:
            # Also for Ctrl-C: other threads' sessions wait for results that will not come.
            for session in self.sessions:
                session.abandon(error)
            self._shut()
            raise
        for event in events:
            for session in self.sessions:
                session.deliver(event)

    def after_fork(self) -> None:
        """In a forked child: start anew, since the parent's threads and sessions are not there."""
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
    """One caller's utterances in a shared scheduler.

    The thread that runs a round works for all sessions; their events wait until they ask.
    """

    def __init__(self, shared: SharedScheduler, scheduler: Scheduler) -> None:
        self.utterances: set[Utterance] = set()
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
        """Utterances of this session that have not ended."""
        return len(self.utterances)

    @property
    def n_slots(self) -> int:
        """Utterances at a time, of all sessions."""
        return self._scheduler.n_slots

    @property
    def idle(self) -> bool:
        """Whether there is neither work nor an event for this session."""
        return not self._events and all(utterance.parked for utterance in self.utterances)

    def add(self, request: Request, **in_stream: Any) -> Utterance:
        """As Scheduler.add. Raises: also EngineError once the scheduler has failed."""
        # Before the lock is taken: a long text takes time.
        text_ids = self._scheduler.tokenize(request)
        with self._open_scheduler() as scheduler:
            utterance = scheduler.add(request, text_ids, **in_stream)
            self.utterances.add(utterance)
            return utterance

    def add_utterance(self, utterance: Utterance) -> None:
        """As Scheduler.add_utterance. Raises: as `add`."""
        with self._open_scheduler() as scheduler:
            scheduler.add_utterance(utterance)
            self.utterances.add(utterance)

    @contextmanager
    def _open_scheduler(self) -> Iterator[Scheduler]:
        """Exclusive access to the scheduler. Raises: EngineError if it has failed."""
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
        """The events since the last call; if there are none, run a round first."""
        self._check_process()
        with self._shared.exclusive():
            if not self._events and self.utterances:
                self._shared.round()
            events = list(self._events)
            self._events.clear()
            return events

    def cancel(self, utterance: Utterance) -> None:
        """As Scheduler.cancel; its events are dropped."""
        with self._shared.exclusive():
            self._scheduler.cancel(utterance)
            self.utterances.discard(utterance)
            self._events = deque(event for event in self._events if event.utterance is not utterance)

    def park(self, utterance: Utterance) -> None:
        """As Scheduler.park."""
        with self._shared.exclusive():
            self._scheduler.park(utterance)

    def resume(self, utterance: Utterance) -> None:
        """As Scheduler.resume."""
        with self._shared.exclusive():
            self._scheduler.resume(utterance)

    def close(self) -> None:
        """Cancel all utterances of this session. Thread-safe; may be called again."""
        self._shared.close(self)

    def deliver(self, event: Event) -> None:
        """Keep an event, if it belongs to this session."""
        if event.utterance in self.utterances:
            self._events.append(event)
            if not isinstance(event, AudioChunk):
                self.utterances.discard(event.utterance)

    def abandon(self, error: BaseException) -> None:
        """Fail all utterances, since the scheduler has failed with `error`."""
        for utterance in list(self.utterances):
            failure = EngineError(f"the networks failed in the middle of other work: {type(error).__name__}: {error}")
            self.deliver(Failed(utterance, failure))

    # --- blocking calls

    def wait(self, utterance: Utterance, silent: bool = True) -> Any:
        """Work until an utterance of this session has ended. Returns: its result. Raises: its error.

        Args:
            silent: no progress bars.
        """
        with ProgressBars(silent) as bars:
            while True:
                events = self.round()
                bars.show(utterance)
                for event in events:
                    if event.utterance is not utterance or isinstance(event, AudioChunk):
                        continue
                    if isinstance(event, Failed):
                        raise event.error
                    return event.result

    def run(self, makers: Iterable[Callable[[], Request]]) -> list[Any]:
        """Run any number of requests, each made when it can start. Returns: a Generation or an error for each."""
        results: list[Any] = []
        indices: dict[Utterance, int] = {}
        waiting = enumerate(makers)
        more = True
        while more or indices:
            # More than there are slots, so that one is ready when a slot is free.
            while more and len(indices) < 2 * max(1, self.n_slots):
                index, make = next(waiting, (0, None))
                if make is None:
                    more = False
                    break
                results.append(None)
                try:
                    indices[self.add(make())] = index
                except Exception as error:
                    # Of any kind: the request has not started.
                    results[index] = error
            for event in self.round():
                if isinstance(event, Done):
                    results[indices.pop(event.utterance)] = event.result
                elif isinstance(event, Failed):
                    results[indices.pop(event.utterance)] = event.error
        return results

    def stream(self, request: Request) -> Iterator[np.ndarray]:
        """Run one request as a stream of (n,) float32 samples. Raises: its error."""
        utterance = self.add(request)
        while True:
            for event in self.round():
                if event.utterance is not utterance:
                    continue
                if isinstance(event, AudioChunk):
                    yield event.audio
                elif isinstance(event, Failed):
                    raise event.error
                else:
                    return


class ProgressBars:
    """A progress bar for each stage of an utterance that reports its progress."""

    def __init__(self, silent: bool) -> None:
        # A process without a terminal may have no standard error.
        self._silent = silent or sys.stderr is None
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            # A text seldom needs as many tokens as it may have.
            bar.total = bar.n
            bar.close()

    def show(self, utterance: Utterance) -> None:
        """Show how far the utterance has come."""
        if self._silent:
            return
        from tqdm import tqdm

        for stage in ("semantic", "coarse", "fine"):
            done, total = utterance.progress(stage)
            if total and stage not in self._bars:
                self._bars[stage] = tqdm(total=total)
            if total:
                self._bars[stage].update(done - self._bars[stage].n)
