"""One scheduler for all callers of a Bark that drive it from threads of their own."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np

from barkfast.engine.events import Chunk, Done, Event, Failed
from barkfast.engine.request import Request
from barkfast.engine.scheduler import Scheduler
from barkfast.engine.utterance import Utterance
from barkfast.errors import BarkfastError, EngineError
from barkfast.parts import Parts


class Desk:
    """Opens a scheduler with the first place that is asked for, and closes it with the last."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.scheduler: Scheduler | None = None
        self.lock = threading.RLock()
        self.places: list[Place] = []

    @property
    def busy(self) -> bool:
        """Whether somebody has a place, so that the networks have other jobs."""
        return bool(self.places)

    def open(self, n_slots: int) -> "Place":
        """A place of one's own; the scheduler has `n_slots` slots, or those that it had when it was opened.

        Errors: EngineError while an engine has the networks; what loading them raises.
        """
        with self.lock:
            if self.scheduler is None:
                layout = self.parts.checkpoint().layout
                self.scheduler = Scheduler(self.parts, layout, n_slots=max(n_slots, self.parts.n_slots))
            place = Place(self)
            self.places.append(place)
            return place

    def leave(self, place: "Place") -> None:
        """Take a place back, and close the scheduler behind the last."""
        with self.lock:
            if place in self.places:
                self.places.remove(place)
            if not self.places and self.scheduler is not None:
                scheduler, self.scheduler = self.scheduler, None
                scheduler.close()

    def round(self) -> None:
        """One round of the scheduler for everybody: each event goes to the place of its utterance.

        An error that is fatal for all is raised here, and fails everybody else's utterances.
        """
        scheduler = self.scheduler
        if scheduler is None:
            return
        try:
            for event in scheduler.round():
                for place in self.places:
                    place.deliver(event)
        except BaseException as error:
            self.scheduler = None
            for place in self.places:
                place.abandon(error)
            scheduler.close()
            raise


class Place:
    """One caller's part of a shared scheduler: used as the scheduler itself, it has this caller's utterances only.

    Whoever runs a round works for all: their events wait until they ask.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._live: set[Utterance] = set()
        self._events: deque[Event] = deque()

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Utterances under way."""
        return len(self._live)

    @property
    def n_slots(self) -> int:
        """Utterances at a time, those of others included."""
        scheduler = self._desk.scheduler
        return 0 if scheduler is None else scheduler.n_slots

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and nothing waits to be told."""
        return not self._events and all(utterance.parked for utterance in self._live)

    def add(self, request: Request) -> Utterance:
        """As Scheduler.add. Errors: moreover EngineError once the scheduler has failed."""
        with self._desk.lock:
            if self._desk.scheduler is None:
                raise EngineError("the networks failed, and what was under way with them; begin anew")
            utterance = self._desk.scheduler.add(request)
            self._live.add(utterance)
            return utterance

    def round(self) -> list[Event]:
        """What came of one's utterances since it was asked last; if nothing did, do a round of work first."""
        with self._desk.lock:
            if not self._events and self._live:
                self._desk.round()
            events = list(self._events)
            self._events.clear()
            return events

    def cancel(self, utterance: Utterance) -> None:
        """As Scheduler.cancel; nothing more is told of it."""
        with self._desk.lock:
            if self._desk.scheduler is not None:
                self._desk.scheduler.cancel(utterance)
            self._live.discard(utterance)
            self._events = deque(event for event in self._events if event.utterance is not utterance)

    def park(self, utterance: Utterance) -> None:
        """As Scheduler.park."""
        with self._desk.lock:
            if self._desk.scheduler is not None:
                self._desk.scheduler.park(utterance)

    def resume(self, utterance: Utterance) -> None:
        """As Scheduler.resume."""
        with self._desk.lock:
            if self._desk.scheduler is not None:
                self._desk.scheduler.resume(utterance)

    def close(self) -> None:
        """Cancel what is under way, and go."""
        with self._desk.lock:
            for utterance in list(self._live):
                self.cancel(utterance)
            self._desk.leave(self)

    def deliver(self, event: Event) -> None:
        """Keep an event, if it is of one of this caller's utterances."""
        if event.utterance in self._live:
            self._events.append(event)
            if not isinstance(event, Chunk):
                self._live.discard(event.utterance)

    def abandon(self, error: BaseException) -> None:
        """End all utterances, since the scheduler has failed with `error`."""
        for utterance in list(self._live):
            failure = EngineError(f"the networks failed in the middle of other work: {type(error).__name__}: {error}")
            self.deliver(Failed(utterance, failure))

    # --- for those who wait until it is done

    def run(self, makers: Iterable[Callable[[], Request]]) -> list[Any]:
        """Speak any number of requests, made when their turn comes; a Generation, or a BarkfastError, for each."""
        results: list[Any] = []
        indices: dict[Utterance, int] = {}
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
                except BarkfastError as error:
                    results[index] = error
            for event in self.round():
                if isinstance(event, Done):
                    results[indices.pop(event.utterance)] = event.generation
                elif isinstance(event, Failed):
                    results[indices.pop(event.utterance)] = event.error
        return results

    def listen(self, request: Request) -> Iterator[np.ndarray]:
        """Speak one request as a stream of (n,) float32 samples. Errors: its own."""
        utterance = self.add(request)
        while True:
            for event in self.round():
                if event.utterance is not utterance:
                    continue
                if isinstance(event, Chunk):
                    yield event.audio
                elif isinstance(event, Failed):
                    raise event.error
                else:
                    return
