"""The sound of one utterance on its way to the reader of a stream."""

import asyncio
import contextlib

import numpy as np

from barkfast.engine.generation import Generation
from barkfast.engine.sinks import Inlet
from barkfast.engine.ticket import Ticket
from barkfast.engine.turns import Turn
from barkfast.engine.worker import Worker


class Feed:
    """The chunks of a turn's request. Who drops it ends the request.

    Args:
        inlet: where the worker puts them.
    """

    def __init__(self, turn: Turn, worker: Worker, ticket: Ticket, inlet: Inlet) -> None:
        self.turn = turn
        self.heard = False
        self._worker, self._ticket, self._inlet = worker, ticket, inlet
        self._loop = asyncio.get_running_loop()
        self._closed = False

    @property
    def generation(self) -> Generation | None:
        """The whole, as soon as it is made."""
        return None if isinstance(self._inlet.outcome, BaseException) else self._inlet.outcome

    def lead(self) -> None:
        """The reader has come to this turn, and waits for its sound."""
        self._worker.lead(self._ticket)

    async def read(self) -> np.ndarray | None:
        """The next chunk, (n,) float32; None at the end. Errors: the request's own, and the engine's."""
        inlet = self._inlet
        while not self._closed and not inlet.chunks and not inlet.ended:
            inlet.news.clear()
            await inlet.news.wait()
        if self._closed or not inlet.chunks:
            if isinstance(inlet.outcome, BaseException):
                raise inlet.outcome
            return None
        self.heard = True
        self._worker.read(self._ticket)
        return inlet.chunks.popleft()

    def close(self) -> None:
        """End the request, if it has not ended; chunks that were not read are gone. Once or more often."""
        if self._closed:
            return
        self._closed = True
        self._inlet.chunks.clear()
        self._inlet.outcome = None
        self._inlet.news.set()
        self._worker.cancel(self._ticket)

    def __del__(self) -> None:
        if self._closed or self._inlet.ended:
            return
        # Not here: this may run anywhere, with any lock held. A closed loop has no one left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._worker.cancel, self._ticket)
