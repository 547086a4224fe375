"""A lock that threads get in the order of their requests."""

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A lock for one thread at a time, not re-entrant, first come first served.

    threading.Lock does not promise an order: a thread that releases it and acquires it again at once, as in a loop over
    short tasks, can starve the others.
    """

    def __init__(self) -> None:
        # Re-entrant: a finalizer may run while the guard is held, and try to acquire the lock.
        self._guard = threading.RLock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    @property
    def n_waiting(self) -> int:
        """Threads that wait for the lock now."""
        return len(self._waiting)

    @property
    def held(self) -> bool:
        """Whether a thread holds the lock."""
        return self._held

    def acquire(self, blocking: bool = True) -> bool:
        """Acquire the lock; without `blocking`, return False at once if a thread holds it or waits for it."""
        with self._guard:
            if not self._held:
                self._held = True
                return True
            if not blocking:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:
            # Ctrl-C: otherwise the lock would be passed to a thread that does not wait any more.
            self._give_up(turn)
            raise
        return True

    def release(self) -> None:
        """Pass the lock to the thread that has waited longest, if any."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def _give_up(self, turn: threading.Lock) -> None:
        """Stop waiting, e.g. after KeyboardInterrupt; if the lock was passed to this thread meanwhile, pass it on."""
        with self._guard:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self.release()

    def __enter__(self) -> "FairLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
