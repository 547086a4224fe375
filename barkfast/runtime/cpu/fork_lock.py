"""Locks for native objects that also work in a forked child."""

import os
import threading
from weakref import WeakSet


class ForkLock:
    """A reentrant lock. In a forked child it is free, unless the thread that forked holds it.

    Attributes:
        abandoned: in a forked child, another thread held it at the fork; the data it guards may be half changed.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.abandoned = False
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def repair(self) -> None:
        """Free the lock if a lost thread holds it; for the only thread of a forked child."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock, self.abandoned = threading.RLock(), True


_locks: WeakSet[ForkLock] = WeakSet()


def _repair_locks() -> None:
    for lock in list(_locks):
        lock.repair()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_repair_locks)
