"""Sound that is made while it is asked for: an iterator that gives the networks back when nobody has it any more."""

import threading
import warnings
from collections.abc import Generator, Iterator

import numpy as np

DROPPED = "a stream of sound was dropped half-read; read it to its end, close it, or use it in a with block"


class Sound(Iterator[np.ndarray]):
    """(n,) float32 samples as they are ready; several threads may take them, each chunk goes to one.

    Work is done while the next chunk is asked for. `close()`, leaving its `with` block or dropping it ends what is
    under way; dropping it half-read is a ResourceWarning.
    """

    def __init__(self, chunks: Generator[np.ndarray, None, None]) -> None:
        self._chunks = chunks
        # A generator runs in one thread at a time.
        self._turn = threading.Lock()
        self._begun = self._ended = False

    def __next__(self) -> np.ndarray:
        with self._turn:
            self._begun = True
            try:
                return next(self._chunks)
            except BaseException:
                self._ended = True
                raise

    def close(self) -> None:
        """End it. Once or more often; a chunk that another thread waits for comes first."""
        with self._turn:
            self._ended = True
            self._chunks.close()

    def __enter__(self) -> "Sound":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._begun and not self._ended:
            warnings.warn(DROPPED, ResourceWarning, stacklevel=2, source=self)
        self._chunks.close()
