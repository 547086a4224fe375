"""Whose turn it is: many utterances over three networks and a codec, a bounded piece of work at a time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from barkfast.components import Components
from barkfast.config import Layout
from barkfast.engine.events import Chunk, Done, Event, Failed
from barkfast.engine.networks import DECODED, Bound, Networks
from barkfast.engine.pace import Pace
from barkfast.engine.request import Request
from barkfast.engine.seating import Advance
from barkfast.engine.task import Task
from barkfast.engine.utterance import Utterance
from barkfast.engine.work import Decode, Refine, Synthesize
from barkfast.errors import BarkfastError, EngineError
from barkfast.runtime.decoder import loses_device
from barkfast.text import fit_text

__all__ = ["Chunk", "Done", "Event", "Failed", "Scheduler"]

# A fine window or a piece of sound waits for no more steps than this, whoever is ahead of it.
MOST_STEPS_BETWEEN = 64
# Every so many times the turn is that of whoever has waited longest, so that those behind in the order get on too.
FAIR_TURN = 8


class Scheduler:
    """Advances any number of tasks in the thread that calls it; keeps no thread and no time of its own.

    The order is: streams whose listeners hear nothing yet; then whoever is due earliest (a deadline, or the end of what
    a stream has handed out so far); then by priority; then by arrival.

    The networks are its own until it is closed; do that, or use it in a `with` block. They are loaded, and moved to
    their device, when a task first needs them.

    Args:
        components: the networks; the decoders grow to `n_slots`.
        n_slots: tasks at a time in each of the two decoders; more wait.
        early: whether streams may voice their first tokens before the last are drawn; it happens only where that
            changes none.
        clock: seconds that only grow, the same as of the requests' deadlines.
        owner: who has the networks meanwhile, for the message that others get who ask for them.
    Errors: InputError for an impossible n_slots; EngineError while another scheduler has them, and without memory.
    """

    def __init__(
        self,
        components: Components,
        layout: Layout,
        *,
        n_slots: int = 1,
        early: bool = True,
        clock: Callable[[], float] = time.monotonic,
        owner: str = "a scheduler",
    ) -> None:
        self.layout, self.n_slots = layout, n_slots
        self._components, self._clock, self._early = components, clock, early
        self._live: dict[Task, None] = {}
        # Work that waits, whoever asked first in front.
        self._jobs: list[tuple[Task, Decode]] = []
        self._asides: list[tuple[Task, Refine | Synthesize]] = []
        self._streams: dict[Task, Any] = {}
        self._events: list[Event] = []
        self._networks = Networks(components, n_slots)
        # Live streams that wait until those who came before them leave room.
        self._line: list[Task] = []
        coarse = layout.coarse
        self._pace = Pace(layout.sample_rate, coarse.n_codebooks * coarse.rate_hz)
        self._n_arrived = self._n_asides = self._n_let_in = 0
        # Those seated who had no seat, by stage.
        self._n_admitted = {"coarse": 0, "semantic": 0}
        self._stepped, self._steps_since_aside = True, 1
        self._open = True
        components.claim(owner)
        try:
            components.grow(n_slots)
        except BaseException:
            components.release()
            raise

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel whatever is under way, free the slots, and give the networks back. Once or more often."""
        if not self._open:
            return
        self._open = False
        try:
            try:
                for task in list(self._live):
                    self.cancel(task)
            finally:
                self._networks.close()
            self._components.shrink()
        finally:
            self._components.release()

    def __len__(self) -> int:
        """Tasks under way."""
        return len(self._live)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do: no task is under way, or all of them are parked."""
        return all(task.parked for task in self._live)

    def tokenize(self, request: Request) -> np.ndarray | None:
        """The ids of a request's text, (n,) int32, those that fit; None where it has semantic tokens.

        Any thread may call it: a text of a million characters takes more than a second.
        Errors: InputError for a text that is too long and may not be cut.
        """
        if request.text is None:
            return None
        tokenizer = self._components.load("text")["tokenizer"]
        ids = fit_text(request.text, tokenizer, self.layout.semantic.n_slots, request.overflow)
        return np.array(ids, dtype=np.int32)

    def add(self, request: Request, text_ids: np.ndarray | None = None) -> Utterance:
        """Take a request in.

        Args:
            text_ids: what `tokenize` makes of it; None to have that done here.
        Errors: InputError or VoiceError for what cannot be spoken; the others are not touched by it.
        """
        bound = self._networks.load(Utterance.stages)
        ids = self.tokenize(request) if text_ids is None else text_ids
        # The torch engine's stages draw from one generator after the other, as the reference's do: none may overlap.
        early = self._early and all(bound[stage][0].engine != "torch" for stage in DECODED)
        utterance = Utterance(request, self.layout, ids, early=early, clock=self._clock)
        self._take_in(utterance, bound)
        return utterance

    def add_task(self, task: Task) -> None:
        """Take a task in. Errors: its own, and then it is not taken in."""
        self._take_in(task, self._networks.load(task.stages))

    def _take_in(self, task: Task, bound: Bound) -> None:
        task.arrival = self._n_arrived
        self._n_arrived += 1
        self._live[task] = None
        try:
            self._networks.bind(task, bound)
            if task.live:
                self._line.append(task)
            else:
                self._ask(task)
        except BaseException:
            self._forget(task)
            raise

    def cancel(self, task: Task) -> None:
        """End a task now; its slots are free at once. Nothing happens to one that has ended."""
        if task in self._live:
            task.cancel()
            self._forget(task)

    def park(self, task: Task) -> None:
        """Begin no new work for a task until it is resumed; a job that sits in a slot comes to its end."""
        if task in self._live:
            task.parked = True
            for seating in self._networks.seatings():
                seating.rest(task)

    def resume(self, task: Task) -> None:
        """Go on with a task that was parked."""
        task.parked = False

    def round(self, seconds: float = 0.0) -> list[Event]:
        """Do a bounded piece of work and return what came of it, maybe nothing.

        At most one job is admitted (its prompt is read); then every job that sits draws one token, or one window goes
        through the fine network, or one piece through the codec.

        Args:
            seconds: where nothing else could be done meanwhile, tokens may be drawn for so long.
        Errors: what makes the device useless for all, raised as it came; then only `close` is left.
        """
        start = self._clock()
        new = self._let_in()
        self._admit()
        if not self._turn_aside():
            self._step(seconds)
        events, self._events = self._events, []
        self._pace.count_round(events, self._clock() - start, new)
        return events

    # --- whose turn it is

    def _rank(self, task: Task) -> tuple[bool, float, int, int]:
        """The place in the order, smallest first."""
        return (not task.awaits_sound, task.due, -task.priority, task.arrival)

    def _let_in(self) -> list[Task]:
        """Begin with as many live streams as can be made as fast as they are heard; what continues one, at once.

        Returns those that have begun, and of which nothing is heard yet.
        """
        served = [t for t in self._live if t.live and not t.follows and not t.parked and t not in self._line]
        new = [task for task in served if task.awaits_sound]
        oldest = (self._n_let_in + 1) % FAIR_TURN == 0
        for task in sorted(self._line, key=(lambda t: t.arrival) if oldest else self._rank):
            if not task.continues:
                if not self._pace.has_room(len(served), len(new)):
                    continue
                served.append(task)
                new.append(task)
                self._n_let_in += 1
            self._line.remove(task)
            with self._alone(task):
                self._ask(task)
        return new

    def _seated(self) -> list[Task]:
        return [task for seating in self._networks.seatings() for task in seating.seated]

    def _admit(self) -> None:
        """Admit one job, if there is room for one and those who sit have had a step since the last."""
        if not self._stepped and self._seated():
            return
        seating = self._networks.seating
        ready = [
            (task, work) for task, work in self._jobs if not task.parked and seating(task, work.stage).has_room(task)
        ]
        if not ready:
            return
        # Who has a seat goes on, so that no newcomer takes the slot that holds its cache.
        going_on = [(task, work) for task, work in ready if seating(task, work.stage).keeps(task)]
        task, work = min(going_on or ready, key=lambda entry: self._rank(entry[0]))
        if not going_on:
            stage = work.stage
            self._n_admitted[stage] += 1
            if self._n_admitted[stage] % FAIR_TURN == 0:
                task, work = next(entry for entry in ready if entry[1].stage == stage)
        self._jobs.remove((task, work))
        self._stepped = False
        with self._alone(task), self._counted(task):
            self._use(task, work.stage)
            task.begin(work)
            seating(task, work.stage).admit(task, work)

    def _use(self, task: Task, stage: str) -> Any:
        """The network that a task uses for a stage, on its device."""
        return self._networks.use(task, stage, busy=bool(self._streams))

    def _choose_aside(self) -> tuple[Task, Refine | Synthesize] | None:
        """The window or piece whose turn comes before the next step, if any."""
        waiting = [entry for entry in self._asides if not entry[0].parked]
        seated = self._seated()
        # One step at least between two of them.
        if not waiting or (seated and not self._steps_since_aside):
            return None
        if self._steps_since_aside >= MOST_STEPS_BETWEEN or (self._n_asides + 1) % FAIR_TURN == 0:
            return waiting[0]
        first = min(waiting, key=lambda entry: self._rank(entry[0]))
        # A task's own sound goes before its next token.
        if seated and min(map(self._rank, seated)) < self._rank(first[0]):
            return None
        return first

    # --- work

    def _turn_aside(self) -> bool:
        """Fill one window or make one piece of sound, if it is the turn of one; returns whether it was."""
        chosen = self._choose_aside()
        if chosen is None:
            return False
        task, work = chosen
        self._asides.remove(chosen)
        self._n_asides += 1
        self._steps_since_aside = 0
        with self._alone(task), self._counted(task):
            network = self._use(task, work.stage)
            task.begin(work)
            if isinstance(work, Refine):
                task.take(work, network.refine(work.job))
            else:
                samples = self._synthesize(network, task, work)
                task.take(work, samples)
                if task.streams and len(samples):
                    self._events.append(Chunk(task, samples))
            self._go_on(task)
        return True

    def _synthesize(self, codec: Any, task: Task, work: Synthesize) -> np.ndarray:
        if work.whole:
            return codec.decode(work.codes)
        if task not in self._streams:
            self._streams[task] = codec.stream()
        stream = self._streams[task]
        pieces = [stream.push(work.codes)] if work.codes.shape[1] else []
        if work.last:
            pieces.append(stream.finish())
        return np.concatenate(pieces)

    def _step(self, seconds: float) -> None:
        """One token for everybody who sits; more, where nobody waits for anything else."""
        seatings = [seating for seating in self._networks.seatings() if len(seating)]
        if len(seatings) != 1 or self._jobs or self._asides or any(task.streams for task in self._seated()):
            seconds = 0.0
        start, n_live = self._clock(), len({task for task in self._seated() if task.live})
        for seating in seatings:
            try:
                advances = seating.step(seconds)
            except Exception as error:
                if loses_device(error):
                    raise
                # Whose fault it was is not known, so it ends those that were in it.
                for task in seating.seated:
                    self._fail(task, error)
                continue
            for advance in advances:
                self._take(advance)
        if n_live:
            self._pace.count_step(n_live, self._clock() - start)
        self._stepped = True
        self._steps_since_aside += 1

    def _take(self, advance: Advance) -> None:
        task, work, step = advance.task, advance.work, advance.step
        if task.ended:
            # By a token before, in the same step.
            return
        with self._alone(task):
            if step.error is not None:
                raise step.error
            if step.token is not None:
                task.take_token(work, step.token)
            if step.done:
                task.take(work)
            if step.done or task.streams:
                self._go_on(task)
            if step.done:
                self._seat_or_not(work.stage, task)

    def _seat_or_not(self, stage: str, task: Task) -> None:
        """Whether a task whose job is done keeps its seat: if its next job continues the cache that is there."""
        if task.ended:
            # All its seats are free already.
            return
        if not task.goes_on(stage):
            self._networks.seating(task, stage).leave(task)
            return
        job = next((work.job for other, work in self._jobs if other is task and work.stage == stage), None)
        if task.parked or (job is not None and job.continues_from is None):
            # Its window has slid, and all of the prompt will be read anew: whoever is more urgent may go first.
            self._networks.seating(task, stage).rest(task)

    def _go_on(self, task: Task) -> None:
        """Ask what is to be done next, or report the end."""
        if task.result is None:
            self._ask(task)
            return
        self._forget(task)
        self._events.append(Done(task, task.result))

    def _ask(self, task: Task) -> None:
        while (work := task.next_work()) is not None:
            if isinstance(work, Decode):
                self._jobs.append((task, work))
            else:
                self._asides.append((task, work))

    @contextmanager
    def _counted(self, task: Task) -> Iterator[None]:
        """The block is work for this task alone."""
        start = self._clock()
        yield
        if task.live:
            self._pace.count_own(self._clock() - start)

    @contextmanager
    def _alone(self, task: Task) -> Iterator[None]:
        """What fails in the block ends this task and no other, unless the device is lost with it."""
        try:
            yield
        except Exception as error:
            if loses_device(error):
                raise
            self._fail(task, error)

    def _fail(self, task: Task, error: Exception) -> None:
        if not isinstance(error, BarkfastError):
            failure = EngineError(f"the request failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            error = failure
        task.fail(error)
        self._forget(task)
        self._events.append(Failed(task, error))

    def _forget(self, task: Task) -> None:
        """Free all that a task which has ended has here."""
        self._live.pop(task, None)
        self._streams.pop(task, None)
        self._pace.forget(task)
        self._line = [other for other in self._line if other is not task]
        self._jobs = [entry for entry in self._jobs if entry[0] is not task]
        self._asides = [entry for entry in self._asides if entry[0] is not task]
        self._networks.release(task)
