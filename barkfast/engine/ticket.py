"""A request on its way through the worker: whom to tell, what was told, and when."""

import time
from collections.abc import Callable
from typing import Any

from barkfast.engine.request import Request
from barkfast.errors import EngineClosed, EngineDead

# What a request ends in: a Generation, its own error, or None where whoever asked for it gave it up.
Outcome = Any


def again(end: EngineClosed | EngineDead) -> EngineClosed | EngineDead:
    """The same error as a new object: each is raised in a place of its own."""
    copy = type(end)(*end.args)
    copy.__cause__ = end.__cause__
    return copy


class Ticket:
    """A request and whoever waits for it.

    Args:
        text_ids: of its text, as `Scheduler.tokenize` makes them.
        on_chunk: takes (n,) float32 samples of a stream, in order.
        on_end: takes the outcome, once, behind all chunks.
        most_unread: chunks that may lie unread; then the utterance is parked until some were read.

    The calls are handed over by the worker's `post`. All that may be set is the worker's own.
    """

    def __init__(
        self,
        request: Request,
        text_ids: Any,
        on_chunk: Callable[[Any], None],
        on_end: Callable[[Outcome], None],
        most_unread: int = 8,
    ) -> None:
        self.request, self.text_ids = request, text_ids
        self.on_chunk, self.on_end, self.most_unread = on_chunk, on_end, most_unread
        self.utterance: Any = None
        # Whether its reader still has the sentence before it to hear.
        self.follows = False
        # Whether another of the same stream came before it.
        self.continues = False
        self.unread = 0
        self.parked = self.ended = False
        self.arrived_s = time.monotonic()
        self.first_chunk_s: float | None = None

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.request.deadline is not None and time.monotonic() >= self.request.deadline
