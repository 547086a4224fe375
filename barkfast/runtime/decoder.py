"""The contract every engine fulfils."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from barkfast.errors import EngineError
from barkfast.jobs import FineJob, Job


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did for one slot: the token it drew (None if that was the stop), and whether the job ended."""

    slot: int
    token: int | None
    done: bool


class Decoder(ABC):
    """Runs a GPT: jobs in, tokens out. Slots are admitted and released between steps."""

    @abstractmethod
    def admit(self, job: Job) -> int:
        """Take a job in and return its slot; the slot is stepped from then on, until its job is done or released."""

    @abstractmethod
    def step(self) -> list[Step]:
        """Advance every slot whose job is not done by one token."""

    @abstractmethod
    def release(self, slot: int) -> None:
        """Free a slot; an unfinished job ends here."""

    @abstractmethod
    def to(self, device: str) -> None:
        """Move the weights, e.g. to the CPU between uses."""

    def run(self, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None = None) -> list[np.ndarray]:
        """Run jobs to their end, one after the other, and return their tokens as int32 arrays.

        `on_token(job index, tokens so far)` is called after every token.
        """
        results = []
        for index, job in enumerate(jobs):
            tokens: list[int] = []
            slot = self.admit(job)
            try:
                done = False
                while not done:
                    for step in self.step():
                        if step.slot != slot:
                            raise EngineError("run() was called while other jobs are admitted; step them to their end")
                        done = step.done
                        if step.token is not None:
                            tokens.append(step.token)
                            if on_token is not None:
                                on_token(index, len(tokens))
            finally:
                self.release(slot)
            results.append(np.array(tokens, dtype=np.int32))
        return results


class Refiner(ABC):
    """Runs the fine network: a window in, the window with its codebooks filled out."""

    @abstractmethod
    def refine(self, job: FineJob) -> np.ndarray:
        """Return the window, (frames, codebooks) int32, with the job's codebooks predicted from its first frame on."""

    @abstractmethod
    def to(self, device: str) -> None:
        """Move the weights."""


class Codec(ABC):
    """Runs the codec's decoder."""

    @abstractmethod
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Turn (codebooks, frames) codes into (samples,) float32."""

    @abstractmethod
    def to(self, device: str) -> None:
        """Move the weights."""
