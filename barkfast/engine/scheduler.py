"""Whose turn it is: many utterances over three networks and a codec, a bounded piece of work at a time."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from barkfast.config import Layout
from barkfast.engine.events import Chunk, Done, Event, Failed
from barkfast.engine.request import Request
from barkfast.engine.seating import Advance, Seating
from barkfast.engine.utterance import Utterance
from barkfast.engine.work import Decode, Refine, Synthesize
from barkfast.errors import BarkfastError
from barkfast.parts import PARTS, Parts
from barkfast.text import fit_text

__all__ = ["Chunk", "Done", "Event", "Failed", "Scheduler"]

# A fine window or a piece of sound waits for no more steps than this, whoever is ahead of it.
MOST_STEPS_BETWEEN = 64
# Every so many times the turn is that of whoever has waited longest, so that those behind in the order get on too.
FAIR_TURN = 8


class Scheduler:
    """Advances any number of utterances in the thread that calls it; keeps no thread and no time of its own.

    The order is: streams whose listeners hear nothing yet; then whoever is due earliest (a deadline, or the end of what
    a stream has handed out so far); then by priority; then by arrival.

    While it is open it has the networks for itself; close it, or use it in a `with` block.

    Args:
        parts: the networks; what is missing is loaded here, and the decoders grow to `n_slots`.
        n_slots: utterances at a time in each of the two decoders; more wait.
        early: whether streams may voice their first tokens before the last are drawn; it happens only where that
            changes none.
        clock: seconds that only grow, the same as of the requests' deadlines.
    Errors: InputError for an impossible n_slots; EngineError while somebody else has the networks, or without memory.
    """

    def __init__(
        self,
        parts: Parts,
        layout: Layout,
        *,
        n_slots: int = 1,
        early: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout, self.n_slots = layout, n_slots
        self._parts, self._clock = parts, clock
        self._live: dict[Utterance, None] = {}
        # Work that waits, whoever asked first in front.
        self._jobs: list[tuple[Utterance, Decode]] = []
        self._asides: list[tuple[Utterance, Refine | Synthesize]] = []
        self._streams: dict[Utterance, Any] = {}
        self._events: list[Event] = []
        self._seatings: dict[str, Seating] = {}
        self._n_arrived = self._n_asides = 0
        # Those seated who had no seat, by stage.
        self._n_admitted = {"coarse": 0, "semantic": 0}
        self._stepped, self._steps_since_aside = True, 1
        self._networks = ExitStack()
        try:
            self._networks.enter_context(parts.claimed())
            text, coarse, self._refiner, self._codec = (
                self._networks.enter_context(parts.using(part)) for part in PARTS
            )
            parts.grow(n_slots)
        except BaseException:
            self._networks.close()
            raise
        # In the order in which they are stepped.
        self._seatings = {"coarse": Seating(coarse, n_slots), "semantic": Seating(text, n_slots)}
        self._early = early and parts.counts_draws

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel whatever is under way, free the slots, and give the networks back."""
        try:
            for utterance in list(self._live):
                self.cancel(utterance)
        finally:
            self._networks.close()

    def __len__(self) -> int:
        """Utterances under way."""
        return len(self._live)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do: no utterance is under way, or all of them are parked."""
        return all(utterance.parked for utterance in self._live)

    def tokenize(self, request: Request) -> np.ndarray | None:
        """The ids of a request's text, (n,) int32, those that fit; None where it has semantic tokens.

        Any thread may call it: a text of a million characters takes more than a second.
        Errors: InputError for a text that is too long and may not be cut.
        """
        if request.text is None:
            return None
        tokenizer = self._parts.models["text"]["tokenizer"]
        ids = fit_text(request.text, tokenizer, self.layout.semantic.n_slots, request.overflow)
        return np.array(ids, dtype=np.int32)

    def add(self, request: Request, text_ids: np.ndarray | None = None) -> Utterance:
        """Take a request in.

        Args:
            text_ids: what `tokenize` makes of it; None to have that done here.
        Errors: InputError or VoiceError for what cannot be spoken; the others are not touched by it.
        """
        ids = self.tokenize(request) if text_ids is None else text_ids
        utterance = Utterance(request, self.layout, ids, early=self._early, arrival=self._n_arrived, clock=self._clock)
        self._n_arrived += 1
        self._live[utterance] = None
        self._ask(utterance)
        return utterance

    def cancel(self, utterance: Utterance) -> None:
        """End an utterance now; its slots are free at once. Nothing happens to one that has ended."""
        if utterance in self._live:
            utterance.cancel()
            self._forget(utterance)

    def park(self, utterance: Utterance) -> None:
        """Begin no new work for an utterance until it is resumed; a job that sits in a slot comes to its end."""
        if utterance in self._live:
            utterance.parked = True
            for seating in self._seatings.values():
                seating.rest(utterance)

    def resume(self, utterance: Utterance) -> None:
        """Go on with an utterance that was parked."""
        utterance.parked = False

    def round(self) -> list[Event]:
        """Do a bounded piece of work and return what came of it, maybe nothing.

        At most one job is admitted (its prompt is read); then every job that sits draws one token, or one window goes
        through the fine network, or one piece through the codec.

        Errors: what is fatal for all, raised as it came; then only `close` is left.
        """
        self._events = []
        self._admit()
        if not self._turn_aside():
            self._step()
        return self._events

    # --- whose turn it is

    def _rank(self, utterance: Utterance) -> tuple[bool, float, int, int]:
        """The place in the order, smallest first."""
        return (not utterance.awaits_sound, utterance.due, -utterance.request.priority, utterance.arrival)

    def _seated(self) -> list[Utterance]:
        return [utterance for seating in self._seatings.values() for utterance in seating.seated]

    def _admit(self) -> None:
        """Admit one job, if there is room for one and those who sit have had a step since the last."""
        if not self._stepped and self._seated():
            return
        ready = [
            (utterance, work)
            for utterance, work in self._jobs
            if not utterance.parked and self._seatings[work.stage].has_room(utterance)
        ]
        if not ready:
            return
        # Who has a seat goes on, so that no newcomer takes the slot that holds its cache.
        going_on = [(utterance, work) for utterance, work in ready if self._seatings[work.stage].keeps(utterance)]
        utterance, work = min(going_on or ready, key=lambda entry: self._rank(entry[0]))
        if not going_on:
            stage = work.stage
            self._n_admitted[stage] += 1
            if self._n_admitted[stage] % FAIR_TURN == 0:
                utterance, work = next(entry for entry in ready if entry[1].stage == stage)
        self._jobs.remove((utterance, work))
        self._stepped = False
        with self._alone(utterance):
            utterance.begin(work)
            self._seatings[work.stage].admit(utterance, work)

    def _choose_aside(self) -> tuple[Utterance, Refine | Synthesize] | None:
        """The window or piece whose turn comes before the next step, if any."""
        waiting = [entry for entry in self._asides if not entry[0].parked]
        seated = self._seated()
        # One step at least between two of them.
        if not waiting or (seated and not self._steps_since_aside):
            return None
        if self._steps_since_aside >= MOST_STEPS_BETWEEN or (self._n_asides + 1) % FAIR_TURN == 0:
            return waiting[0]
        first = min(waiting, key=lambda entry: self._rank(entry[0]))
        # An utterance's own sound goes before its next token.
        if seated and min(map(self._rank, seated)) < self._rank(first[0]):
            return None
        return first

    # --- work

    def _turn_aside(self) -> bool:
        """Fill one window or make one piece of sound, if it is the turn of one; returns whether it was."""
        chosen = self._choose_aside()
        if chosen is None:
            return False
        utterance, work = chosen
        self._asides.remove(chosen)
        self._n_asides += 1
        self._steps_since_aside = 0
        with self._alone(utterance):
            utterance.begin(work)
            if isinstance(work, Refine):
                utterance.take(work, self._refiner.refine(work.job))
            else:
                samples = self._synthesize(utterance, work)
                utterance.take(work, samples)
                if utterance.streams and len(samples):
                    self._events.append(Chunk(utterance, samples))
            self._go_on(utterance)
        return True

    def _synthesize(self, utterance: Utterance, work: Synthesize) -> np.ndarray:
        if work.whole:
            return self._codec.decode(work.codes)
        if utterance not in self._streams:
            self._streams[utterance] = self._codec.stream()
        stream = self._streams[utterance]
        pieces = [stream.push(work.codes)] if work.codes.shape[1] else []
        if work.last:
            pieces.append(stream.finish())
        return np.concatenate(pieces)

    def _step(self) -> None:
        """One token for everybody who sits."""
        for stage, seating in self._seatings.items():
            if len(seating):
                for advance in seating.step():
                    self._take(stage, advance)
        self._stepped = True
        self._steps_since_aside += 1

    def _take(self, stage: str, advance: Advance) -> None:
        utterance, work, step = advance.utterance, advance.work, advance.step
        with self._alone(utterance):
            if step.error is not None:
                raise step.error
            if step.token is not None:
                utterance.take_token(work, step.token)
            if step.done:
                utterance.take(work)
            if step.done or utterance.streams:
                self._go_on(utterance)
            if step.done:
                self._seat_or_not(stage, utterance)

    def _seat_or_not(self, stage: str, utterance: Utterance) -> None:
        """Whether an utterance whose job is done keeps its seat: if its next job continues the cache that is there."""
        if not utterance.goes_on(stage):
            self._seatings[stage].leave(utterance)
            return
        job = next((work.job for other, work in self._jobs if other is utterance and work.stage == stage), None)
        if utterance.parked or (job is not None and job.extends is None):
            # Its window has slid, and all of the prompt will be read anew: whoever is more urgent may go first.
            self._seatings[stage].rest(utterance)

    def _go_on(self, utterance: Utterance) -> None:
        """Ask what is to be done next, or report the end."""
        if utterance.generation is None:
            self._ask(utterance)
            return
        self._forget(utterance)
        self._events.append(Done(utterance, utterance.generation))

    def _ask(self, utterance: Utterance) -> None:
        while (work := utterance.next_work()) is not None:
            if isinstance(work, Decode):
                self._jobs.append((utterance, work))
            else:
                self._asides.append((utterance, work))

    @contextmanager
    def _alone(self, utterance: Utterance) -> Iterator[None]:
        """What fails in the block on purpose ends this utterance and no other."""
        try:
            yield
        except BarkfastError as error:
            utterance.fail(error)
            self._forget(utterance)
            self._events.append(Failed(utterance, error))

    def _forget(self, utterance: Utterance) -> None:
        """Free all that an utterance which has ended has here."""
        self._live.pop(utterance, None)
        self._streams.pop(utterance, None)
        self._jobs = [entry for entry in self._jobs if entry[0] is not utterance]
        self._asides = [entry for entry in self._asides if entry[0] is not utterance]
        for seating in self._seatings.values():
            seating.leave(utterance)
