"""The slots of one decoder: who sits in which, and who keeps a seat between two of its jobs."""

from dataclasses import dataclass

from barkfast.engine.utterance import Utterance
from barkfast.engine.work import Decode
from barkfast.runtime.decoder import Decoder, Step


@dataclass(frozen=True, slots=True)
class Advance:
    """What one step did for one utterance."""

    utterance: Utterance
    work: Decode
    step: Step


class Seating:
    """The seats of one decoder.

    An utterance keeps its seat from one of its jobs to the next, until it rests or leaves: the next coarse window often
    continues the cache of the one before, which would be lost if somebody else took the slot.

    Args:
        n_seats: utterances at a time; the decoder has as many slots.
    """

    def __init__(self, decoder: Decoder, n_seats: int) -> None:
        self._decoder, self.n_seats = decoder, n_seats
        # Slot -> who sits there, for what.
        self._seated: dict[int, tuple[Utterance, Decode]] = {}
        self._keepers: set[Utterance] = set()

    def __len__(self) -> int:
        """Utterances whose jobs are stepped."""
        return len(self._seated)

    @property
    def seated(self) -> list[Utterance]:
        """The utterances whose jobs are stepped."""
        return [utterance for utterance, _ in self._seated.values()]

    def keeps(self, utterance: Utterance) -> bool:
        """Whether it has a seat of its own already."""
        return utterance in self._keepers

    def has_room(self, utterance: Utterance) -> bool:
        """Whether its next job can be admitted."""
        return self.keeps(utterance) or len(self._keepers) < self.n_seats

    def admit(self, utterance: Utterance, work: Decode) -> None:
        """Seat an utterance. Errors: the decoder's, and then it has no seat."""
        try:
            slot = self._decoder.admit(work.job)
        except BaseException:
            self._keepers.discard(utterance)
            raise
        self._seated[slot] = (utterance, work)
        self._keepers.add(utterance)

    def step(self) -> list[Advance]:
        """One token for everybody who sits; slots whose jobs are done are released, and the seats kept."""
        advances = []
        for step in self._decoder.step():
            advances.append(Advance(*self._seated[step.slot], step))
            if step.done:
                self._vacate(step.slot)
        return advances

    def rest(self, utterance: Utterance) -> None:
        """Give up a seat that is merely kept; who sits goes on sitting."""
        if all(seated is not utterance for seated, _ in self._seated.values()):
            self._keepers.discard(utterance)

    def leave(self, utterance: Utterance) -> None:
        """Give up the seat, in the middle of a job too; nothing if there is none."""
        for slot, (seated, _) in list(self._seated.items()):
            if seated is utterance:
                self._vacate(slot)
        self._keepers.discard(utterance)

    def _vacate(self, slot: int) -> None:
        del self._seated[slot]
        self._decoder.release(slot)
