"""What a scheduler advances: a whole utterance, or one stage of it."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from barkfast.engine.work import Decode, Refine, Synthesize, Work
from barkfast.errors import BarkfastError
from barkfast.jobs import Job
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows


class Task(ABC):
    """Hands out work and takes its results; calls no network itself. It ends once: with a result, an error, or neither.

    Args:
        arrival: its number in the order of arrival.
        priority: of two tasks that are equally due, the one of higher priority goes first.
    """

    # What it needs networks for.
    stages: tuple[str, ...] = ("semantic", "coarse", "fine", "codec")
    # Whether its sound is handed out as it comes.
    streams = False
    # Whether it is a stream that is heard while it is being made.
    live = False
    # Whether it is a stream of which nothing was heard yet.
    awaits_sound = False

    def __init__(self, arrival: int = 0, priority: int = 0) -> None:
        self.arrival, self.priority = arrival, priority
        self.result: Any = None
        self.error: BarkfastError | None = None
        self.cancelled = False
        # Set by the scheduler: no new work until it is resumed.
        self.parked = False
        # Set by whoever asked for it: what its listener hears before it is still being spoken.
        self.follows = False
        # Likewise: whether it goes on with a stream that has begun, so that it waits for no other.
        self.continues = False
        # Set by the scheduler: stage -> the engine that runs it, and why it is not the one that was chosen.
        self.engines: dict[str, str] = {}
        self.fallbacks: dict[str, str] = {}

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.cancelled or self.result is not None or self.error is not None

    @property
    def due(self) -> float:
        """When it should be served at the latest, in seconds of the clock; infinity for whenever there is time."""
        return math.inf

    def progress(self, stage: str) -> tuple[int, int]:
        """How far a stage has come: semantic tokens, or windows, that are done, and how many there may be."""
        return 0, 0

    @abstractmethod
    def goes_on(self, stage: str) -> bool:
        """Whether the decoder of `stage` has, or will have, more to do for it."""

    @abstractmethod
    def next_work(self) -> Work | None:
        """What is to be done next and was not handed out before; None if that waits for what is under way."""

    def begin(self, work: Work) -> None:  # noqa: B027
        """Note that `work` is being done from now on."""

    @abstractmethod
    def take_token(self, work: Decode, token: int) -> None:
        """Take the next token of a Decode under way. Errors: InputError."""

    @abstractmethod
    def take(self, work: Work, result: np.ndarray | None = None) -> None:
        """Take the end of `work`: of a Refine the filled window, of a Synthesize the samples, of a Decode nothing more.

        Errors: InputError, if what came of it is of no use.
        """

    def fail(self, error: BarkfastError) -> None:
        """End with an error."""
        self.error = error
        self._forget()

    def cancel(self) -> None:
        """End with nothing."""
        self.cancelled = True
        self._forget()

    def _forget(self) -> None:  # noqa: B027
        """Give back the memory of what is no longer needed."""


class StageTask(Task):
    """One stage alone, its pieces of work one after the other.

    Args:
        stage: semantic, coarse, fine or codec.
    """

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage, self.stages = stage, (stage,)
        self._asked = False
        self._tokens: list[int] = []

    def goes_on(self, stage: str) -> bool:
        return stage == self.stage and not self.ended

    def next_work(self) -> Work | None:
        if self._asked or self.ended:
            return None
        self._asked = True
        return self._next()

    def take_token(self, work: Decode, token: int) -> None:
        self._tokens.append(token)

    def take(self, work: Work, result: np.ndarray | None = None) -> None:
        self._asked = False
        self._take(result)
        self._tokens = []

    @abstractmethod
    def _next(self) -> Work | None:
        """The next piece of work, if there is one more."""

    @abstractmethod
    def _take(self, result: np.ndarray | None) -> None:
        """Take its end, and set `result` with the last one's."""


class SemanticTask(StageTask):
    """A text's semantic tokens: (n,) int64."""

    def __init__(self, job: Job) -> None:
        super().__init__("semantic")
        self._job = job

    def progress(self, stage: str) -> tuple[int, int]:
        done = len(self._tokens) if self.result is None else len(self.result)
        return (done, self._job.steps) if stage == "semantic" else (0, 0)

    def _next(self) -> Decode:
        return Decode("semantic", self._job)

    def _take(self, result: np.ndarray | None) -> None:
        self.result = np.array(self._tokens, dtype=np.int64)


class CoarseTask(StageTask):
    """Semantic tokens' coarse codes: (codebooks, frames) int32."""

    def __init__(self, windows: CoarseWindows) -> None:
        super().__init__("coarse")
        self._windows = windows
        self._n_done = 0

    def progress(self, stage: str) -> tuple[int, int]:
        return (self._n_done, self._windows.n_windows) if stage == "coarse" else (0, 0)

    def _next(self) -> Decode | None:
        job = self._windows.next_job()
        return None if job is None else Decode("coarse", job)

    def _take(self, result: np.ndarray | None) -> None:
        self._windows.append(np.array(self._tokens, dtype=np.int32))
        self._n_done += 1
        if self._windows.done:
            self.result = self._windows.codes()


class FineTask(StageTask):
    """Coarse codes' missing codebooks: (codebooks, frames) int32."""

    def __init__(self, windows: FineWindows) -> None:
        super().__init__("fine")
        self._windows = windows

    def progress(self, stage: str) -> tuple[int, int]:
        return (self._windows.n_done, self._windows.n_windows) if stage == "fine" else (0, 0)

    def _next(self) -> Refine | None:
        job = self._windows.next_job()
        return None if job is None else Refine(job)

    def _take(self, result: np.ndarray | None) -> None:
        assert result is not None
        self._windows.append(result)
        if self._windows.n_done == self._windows.n_windows:
            self.result = self._windows.codes()


class CodecTask(StageTask):
    """Codes' sound: (samples,) float32."""

    def __init__(self, codes: np.ndarray) -> None:
        super().__init__("codec")
        self._codes = codes

    def _next(self) -> Synthesize:
        return Synthesize(self._codes, whole=True, last=True)

    def _take(self, result: np.ndarray | None) -> None:
        self.result = result
