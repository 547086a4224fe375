"""Where an event loop takes what the worker has made of a request: chunks, and then the outcome."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque

import numpy as np

from barkfast.engine.generation import Generation
from barkfast.engine.ticket import Outcome


class Sink(ABC):
    """Takes chunks, and then the outcome, once; both calls are made in the event loop."""

    @abstractmethod
    def put(self, chunk: np.ndarray) -> None:
        """Take (n,) float32 samples."""

    @abstractmethod
    def end(self, outcome: Outcome) -> None:
        """Take the outcome: there will be no more chunks."""


class Answer(Sink):
    """For one who waits for the outcome alone; made in the event loop."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()

    def put(self, chunk: np.ndarray) -> None:
        """There are none: nothing is streamed to it."""

    def end(self, outcome: Outcome) -> None:
        """Pass the outcome to whoever waits, if anybody still does."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        elif outcome is None:
            self.future.cancel()
        else:
            self.future.set_result(outcome)


class Inlet(Sink):
    """For one who reads chunk by chunk.

    Apart from the `Feed`, which nothing but its reader's stream holds: so it is noticed when the reader goes.
    """

    def __init__(self) -> None:
        self.chunks: deque[np.ndarray] = deque()
        self.outcome: Outcome = None
        self.ended = False
        self.news = asyncio.Event()

    def put(self, chunk: np.ndarray) -> None:
        """Keep a chunk until it is read."""
        self.chunks.append(chunk)
        self.news.set()

    def end(self, outcome: Outcome) -> None:
        """Keep the outcome until the chunks before it have been read."""
        self.outcome, self.ended = outcome, True
        self.news.set()
