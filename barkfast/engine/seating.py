"""The slots of one decoder: who sits in which, and who keeps a seat between two of its jobs."""

from dataclasses import dataclass

from barkfast.engine.task import Task
from barkfast.engine.work import Decode
from barkfast.runtime.decoder import Decoder, Step


@dataclass(frozen=True, slots=True)
class Advance:
    """What one step did for one task."""

    task: Task
    work: Decode
    step: Step


class Seating:
    """The seats of one decoder.

    A task keeps its seat from one of its jobs to the next, until it rests or leaves: the next coarse window often
    continues the cache of the one before, which would be lost if somebody else took the slot.

    Args:
        n_seats: tasks at a time; the decoder has at least as many slots.
    """

    def __init__(self, decoder: Decoder, n_seats: int) -> None:
        self._decoder, self.n_seats = decoder, n_seats
        # Slot -> who sits there, for what.
        self._seated: dict[int, tuple[Task, Decode]] = {}
        self._keepers: set[Task] = set()

    def __len__(self) -> int:
        """Tasks whose jobs are stepped."""
        return len(self._seated)

    @property
    def seated(self) -> list[Task]:
        """The tasks whose jobs are stepped."""
        return [task for task, _ in self._seated.values()]

    def keeps(self, task: Task) -> bool:
        """Whether it has a seat of its own already."""
        return task in self._keepers

    def has_room(self, task: Task) -> bool:
        """Whether its next job can be admitted."""
        return self.keeps(task) or len(self._keepers) < self.n_seats

    def admit(self, task: Task, work: Decode) -> None:
        """Seat a task. Errors: the decoder's, and then it has no seat."""
        try:
            slot = self._decoder.admit(work.job)
        except BaseException:
            self._keepers.discard(task)
            raise
        self._seated[slot] = (task, work)
        self._keepers.add(task)

    @property
    def in_use(self) -> bool:
        """Whether anybody sits, or keeps a seat."""
        return bool(self._seated or self._keepers)

    def step(self, seconds: float = 0.0) -> list[Advance]:
        """One token, or some, for everybody who sits; slots whose jobs are done are released, and the seats kept."""
        advances = []
        for step in self._decoder.step(seconds):
            advances.append(Advance(*self._seated[step.slot], step))
            if step.done:
                self._vacate(step.slot)
        return advances

    def rest(self, task: Task) -> None:
        """Give up a seat that is merely kept; who sits goes on sitting."""
        if all(seated is not task for seated, _ in self._seated.values()):
            self._keepers.discard(task)

    def leave(self, task: Task) -> None:
        """Give up the seat, in the middle of a job too; nothing if there is none."""
        for slot, (seated, _) in list(self._seated.items()):
            if seated is task:
                self._vacate(slot)
        self._keepers.discard(task)

    def _vacate(self, slot: int) -> None:
        del self._seated[slot]
        self._decoder.release(slot)
