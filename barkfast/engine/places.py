"""The bounded queue in front of an engine: a place for everybody it speaks for, and those who wait for one."""

import asyncio
import time
from collections import deque

from barkfast.engine.ticket import again
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineDead, QueueFull


class Stay:
    """A place that somebody has, until nothing is under way in it and nothing more comes.

    Args:
        deadline: of all that is done in it, in seconds of time.monotonic().
    """

    def __init__(self, places: "Places", deadline: float | None) -> None:
        self.deadline = deadline
        self._places: Places | None = places
        # Whether anything has begun in it.
        self.used = False
        self._n_inside = 0
        self._closing = False

    def enter(self) -> None:
        """Something begins in it."""
        self.used = True
        self._n_inside += 1

    def leave(self) -> None:
        """It has ended."""
        self._n_inside -= 1
        self._check()

    def close(self) -> None:
        """Nothing more begins in it. Once or more often."""
        self._closing = True
        self._check()

    def _check(self) -> None:
        if self._closing and not self._n_inside and self._places is not None:
            places, self._places = self._places, None
            places.give_back()


class Places:
    """As many places as there is room for; who waits for one gets it in the order of coming. Of one event loop.

    Args:
        room: how many there are.
    """

    def __init__(self, room: int) -> None:
        self.room, self.taken = room, 0
        # Why none is given any more, once that is so.
        self.closed: EngineClosed | EngineDead | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def empty(self) -> bool:
        """Whether no place is taken."""
        return not self.taken

    async def take(self, wait: bool, deadline: float | None) -> Stay:
        """Take a place; it is given back when it is closed and what was under way in it has ended.

        Args:
            wait: for a place to come free, until `deadline`, in seconds of time.monotonic().
        Errors: QueueFull, DeadlineExceeded, and why the places were closed.
        """
        self.check_open()
        if self.taken < self.room and not self._waiting:
            self.taken += 1
            self._empty.clear()
            return Stay(self, deadline)
        if not wait:
            raise QueueFull(
                f"the engine holds {self.taken} requests, as many as it may; ask again later, or with wait=True"
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await asyncio.wait([place], timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except asyncio.CancelledError:
            self._leave(place)
            raise
        if self.closed is not None or not place.done():
            self._leave(place)
            self.check_open()
            raise DeadlineExceeded("no place in the engine's queue came free before the request's deadline")
        return Stay(self, deadline)

    def give_back(self) -> None:
        """Give a place back: to the first who waits for one, if anybody does."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.taken -= 1
        if not self.taken:
            self._empty.set()

    def close(self, why: EngineClosed | EngineDead) -> None:
        """Give no more places, not to those who wait either. The first reason stays."""
        if self.closed is None:
            self.closed = why
        while self._waiting:
            self._waiting.popleft().cancel()

    async def wait_until_empty(self) -> None:
        """Until all places were given back."""
        await self._empty.wait()

    def _leave(self, place: asyncio.Future[None]) -> None:
        """Stop waiting for a place; one that came at that very moment goes to the next."""
        if place.done() and not place.cancelled():
            self.give_back()
        elif place in self._waiting:
            self._waiting.remove(place)

    def check_open(self) -> None:
        """Errors: why the places were closed, if they were."""
        if self.closed is not None:
            raise again(self.closed)
