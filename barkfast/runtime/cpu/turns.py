"""Locks and errors around native objects: threads take turns, in the child of a fork too."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from barkfast.errors import EngineError, InputError


class Turn:
    """A reentrant lock. In the child of a fork it is free, unless the thread that forked holds it.

    Attributes:
        abandoned: this is the child of a fork at which another thread held it; what it guards may be half changed.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.abandoned = False
        _turns.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def repair(self) -> None:
        """In the child of a fork, in its only thread."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock, self.abandoned = threading.RLock(), True


_turns: WeakSet[Turn] = WeakSet()


def _repair_turns() -> None:
    for turn in list(_turns):
        turn.repair()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_repair_turns)


@contextmanager
def refusals() -> Iterator[None]:
    """The native module's errors as barkfast's."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error
    except MemoryError as error:
        raise EngineError(
            "no memory left for the cpu engine's buffers; use fewer slots, or close other programs"
        ) from error
    except RuntimeError as error:
        raise EngineError(f"the cpu engine cannot do this now: {error}") from error
