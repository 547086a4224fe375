"""The scheduler: which work of many utterances runs next, and one round of it at a time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from barkfast.components import Components
from barkfast.config import Layout
from barkfast.engine.pace import Pace
from barkfast.engine.results import AudioChunk, Done, Event, Failed
from barkfast.engine.slots import DECODED, Advance, Bound, Networks
from barkfast.engine.utterance import Decode, Refine, Synthesize, Utterance
from barkfast.errors import BarkfastError, EngineError
from barkfast.options import Request
from barkfast.runtime.decoder import loses_device
from barkfast.text import fit_text

# Decode steps that a fine window or codec work waits for at most, whatever is ahead of it.
MOST_STEPS_BETWEEN = 64
# Every so many times the oldest waiting work goes first, so that work of low rank makes progress too.
FAIR_EVERY = 8


class Scheduler:
    """Advances any number of utterances, in the thread that calls `round`; has no thread of its own.

    Order: streams that have no audio yet; then the earliest due (a deadline, or when a stream's audio so far has
    played); then priority; then arrival.

    It claims the networks until it is closed: call `close`, or use it in a `with` block. Networks are loaded, and moved
    to their device, when an utterance first needs them.

    Args:
        components: the networks; the decoders grow to `n_slots`.
        n_slots: utterances at a time in each of the two decoders; more wait.
        clock: monotonic seconds, the clock of the requests' deadlines.
        owner: who claims the networks, for the error that others get.

    Raises:
        InputError: impossible n_slots.
        EngineError: the networks are claimed already, or there is no memory for the slots.
    """

    def __init__(
        self,
        components: Components,
        layout: Layout,
        *,
        n_slots: int = 1,
        clock: Callable[[], float] = time.monotonic,
        owner: str = "a scheduler",
    ) -> None:
        self.layout, self.n_slots = layout, n_slots
        self._components, self._clock = components, clock
        self._live: dict[Utterance, None] = {}
        # Work that waits, oldest first: for a slot of a decoder, and for the fine network or the codec.
        self._jobs: list[tuple[Utterance, Decode]] = []
        self._other: list[tuple[Utterance, Refine | Synthesize]] = []
        self._codec_streams: dict[Utterance, Any] = {}
        self._events: list[Event] = []
        self._networks = Networks(components, n_slots)
        # Low-latency streams that wait until there is time for one more.
        self._queued: list[Utterance] = []
        coarse = layout.coarse
        self._pace = Pace(layout.sample_rate, coarse.n_codebooks * coarse.rate_hz)
        self._n_arrived = self._n_other = self._n_dequeued = 0
        # Slots allocated, by stage; retained ones are not counted.
        self._n_allocated = {"coarse": 0, "semantic": 0}
        self._stepped, self._steps_since_other = True, 1
        self._open = True
        components.claim(owner)
        try:
            components.grow(n_slots)
        except BaseException:
            # Also for Ctrl-C: nobody else would release them.
            components.release()
            raise

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel all utterances, free the slots, and release the networks. May be called again."""
        if not self._open:
            return
        self._open = False
        try:
            try:
                for utterance in list(self._live):
                    self.cancel(utterance)
            finally:
                self._networks.close()
            self._components.shrink()
        finally:
            self._components.release()

    def __len__(self) -> int:
        """Utterances that have not ended."""
        return len(self._live)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do: no utterance is live, or all of them are parked."""
        return all(utterance.parked for utterance in self._live)

    def tokenize(self, request: Request) -> np.ndarray | None:
        """The ids of a request's text, (n,) int32, as many as fit; None where it has semantic tokens.

        Thread-safe: a text of a million characters takes more than a second.

        Raises:
            InputError: the text is too long and must not be cut.
        """
        if request.text is None:
            return None
        tokenizer = self._components.load("text")["tokenizer"]
        ids = fit_text(request.text, tokenizer, self.layout.semantic.n_slots, request.overflow)
        return np.array(ids, dtype=np.int32)

    def add(self, request: Request, text_ids: np.ndarray | None = None, **in_stream: Any) -> Utterance:
        """Start a request.

        Args:
            text_ids: the result of `tokenize`; None to compute it here.
            in_stream: `prefetched` and `continues_stream`, as of Utterance.

        Raises:
            InputError, VoiceError: the model cannot speak it. Other utterances are not affected.
        """
        bound = self._networks.load(DECODED + ("fine", "codec"))
        ids = self.tokenize(request) if text_ids is None else text_ids
        # On the torch engine the stages draw from one generator, one after the other, as in the reference: no overlap.
        overlap = all(bound[stage][0].engine != "torch" for stage in DECODED)
        utterance = Utterance(request, self.layout, ids, overlap=overlap, clock=self._clock, **in_stream)
        self._take_in(utterance, bound)
        return utterance

    def add_utterance(self, utterance: Utterance) -> None:
        """Start an utterance of a single stage. Raises: its errors; it is then not taken in."""
        self._take_in(utterance, self._networks.load(utterance.stages))

    def _take_in(self, utterance: Utterance, bound: Bound) -> None:
        utterance.arrival = self._n_arrived
        self._n_arrived += 1
        self._live[utterance] = None
        try:
            self._networks.bind(utterance, bound)
            if utterance.live:
                self._queued.append(utterance)
            else:
                self._collect_work(utterance)
        except BaseException:
            # Also for Ctrl-C: its caller does not know the utterance yet.
            self._forget(utterance)
            raise

    def cancel(self, utterance: Utterance) -> None:
        """End an utterance now; its slots are free at once. No effect on one that has ended."""
        if utterance in self._live:
            utterance.cancel()
            self._forget(utterance)

    def park(self, utterance: Utterance) -> None:
        """Start no new work for an utterance until it is resumed; a job in a slot runs to its end."""
        if utterance in self._live:
            utterance.parked = True
            for table in self._networks.tables():
                table.pause(utterance)

    def resume(self, utterance: Utterance) -> None:
        """Resume a parked utterance."""
        utterance.parked = False

    def round(self, seconds: float = 0.0) -> list[Event]:
        """Do a bounded piece of work and return the events, maybe none.

        At most one job gets a slot, which prefills its prompt. Then either every running job draws one token, or one
        window goes through the fine network, or one piece through the codec.

        Args:
            seconds: draw tokens for so long where nothing else is waiting.

        Raises:
            Exception: the device is lost for everybody; only `close` may follow.
        """
        start = self._clock()
        new = self._dequeue_streams()
        self._allocate()
        if not self._run_other():
            self._step(seconds)
        events, self._events = self._events, []
        self._pace.count_round(events, self._clock() - start, new)
        return events

    # --- policy

    def _rank(self, utterance: Utterance) -> tuple[bool, float, int, int]:
        """The order of service, smallest first."""
        return (not utterance.awaits_first_audio, utterance.due, -utterance.priority, utterance.arrival)

    def _dequeue_streams(self) -> list[Utterance]:
        """Start as many low-latency streams as can be made as fast as they play; what continues one starts at once.

        Returns: the streams that have started and have no audio yet.
        """
        served = [t for t in self._live if t.live and not t.prefetched and not t.parked and t not in self._queued]
        new = [utterance for utterance in served if utterance.awaits_first_audio]
        oldest = (self._n_dequeued + 1) % FAIR_EVERY == 0
        for utterance in sorted(self._queued, key=(lambda t: t.arrival) if oldest else self._rank):
            if not utterance.continues_stream:
                if not self._pace.has_room(len(served), len(new)):
                    continue
                served.append(utterance)
                new.append(utterance)
                self._n_dequeued += 1
            self._queued.remove(utterance)
            with self._isolated(utterance):
                self._collect_work(utterance)
        return new

    def _running(self) -> list[Utterance]:
        return [utterance for table in self._networks.tables() for utterance in table.running]

    def _allocate(self) -> None:
        """Start one job, if a slot is free and the running jobs have had a step since the last one started."""
        if not self._stepped and self._running():
            return
        table = self._networks.table
        ready = [
            (utterance, work)
            for utterance, work in self._jobs
            if not utterance.parked and table(utterance, work.stage).has_slot(utterance)
        ]
        if not ready:
            return
        # Utterances that retain a slot first, so that no new one takes the slot that holds their cache.
        continuing = [(utterance, work) for utterance, work in ready if table(utterance, work.stage).retains(utterance)]
        utterance, work = min(continuing or ready, key=lambda entry: self._rank(entry[0]))
        if not continuing:
            stage = work.stage
            self._n_allocated[stage] += 1
            if self._n_allocated[stage] % FAIR_EVERY == 0:
                utterance, work = next(entry for entry in ready if entry[1].stage == stage)
        self._jobs.remove((utterance, work))
        self._stepped = False
        with self._isolated(utterance), self._timed(utterance):
            self._use(utterance, work.stage)
            utterance.begin(work)
            table(utterance, work.stage).allocate(utterance, work)

    def _use(self, utterance: Utterance, stage: str) -> Any:
        """The network of an utterance for a stage, on its device."""
        return self._networks.use(utterance, stage, streaming=bool(self._codec_streams))

    def _choose_other(self) -> tuple[Utterance, Refine | Synthesize] | None:
        """The fine window or codec work that runs before the next decode step, if any."""
        waiting = [entry for entry in self._other if not entry[0].parked]
        running = self._running()
        # At least one step between two of them.
        if not waiting or (running and not self._steps_since_other):
            return None
        if self._steps_since_other >= MOST_STEPS_BETWEEN or (self._n_other + 1) % FAIR_EVERY == 0:
            return waiting[0]
        first = min(waiting, key=lambda entry: self._rank(entry[0]))
        # An utterance's own audio goes before its next token.
        if running and min(map(self._rank, running)) < self._rank(first[0]):
            return None
        return first

    # --- work

    def _run_other(self) -> bool:
        """Run one fine window or one piece of codec work, if one is due. Returns: whether it did."""
        chosen = self._choose_other()
        if chosen is None:
            return False
        utterance, work = chosen
        self._other.remove(chosen)
        self._n_other += 1
        self._steps_since_other = 0
        with self._isolated(utterance), self._timed(utterance):
            network = self._use(utterance, work.stage)
            utterance.begin(work)
            if isinstance(work, Refine):
                utterance.take(work, network.refine(work.job))
            else:
                samples = utterance.mark(self._synthesize(network, utterance, work), work.last)
                utterance.take(work, samples)
                if utterance.streams and len(samples):
                    self._events.append(AudioChunk(utterance, samples))
            self._continue(utterance)
        return True

    def _synthesize(self, codec: Any, utterance: Utterance, work: Synthesize) -> np.ndarray:
        if work.whole:
            return codec.decode(work.codes)
        if utterance not in self._codec_streams:
            self._codec_streams[utterance] = codec.stream()
        stream = self._codec_streams[utterance]
        pieces = [stream.push(work.codes)] if work.codes.shape[1] else []
        if work.last:
            pieces.append(stream.finish())
        return np.concatenate(pieces)

    def _step(self, seconds: float) -> None:
        """Draw one token for every running job; several, where nothing else waits."""
        tables = [table for table in self._networks.tables() if len(table)]
        if len(tables) != 1 or self._jobs or self._other or any(utterance.streams for utterance in self._running()):
            seconds = 0.0
        start, n_live = self._clock(), len({utterance for utterance in self._running() if utterance.live})
        for table in tables:
            try:
                advances = table.step(seconds)
            except Exception as error:
                # An engine may raise anything, torch's errors among it.
                if loses_device(error):
                    raise
                # Which job caused it is not known, so all running ones fail.
                for utterance in table.running:
                    self._fail(utterance, error)
                continue
            for advance in advances:
                self._take(advance)
        if n_live:
            self._pace.count_step(n_live, self._clock() - start)
        self._stepped = True
        self._steps_since_other += 1

    def _take(self, advance: Advance) -> None:
        utterance, work, step = advance.utterance, advance.work, advance.step
        if utterance.ended:
            # By an earlier token of the same step.
            return
        with self._isolated(utterance):
            if step.error is not None:
                raise step.error
            if step.token is not None:
                utterance.take_token(work, step.token)
            if step.done:
                utterance.take(work)
            if step.done or utterance.streams:
                self._continue(utterance)
            if step.done:
                self._retain_or_free(work.stage, utterance)

    def _retain_or_free(self, stage: str, utterance: Utterance) -> None:
        """After a job: retain the slot if the next job continues its cache."""
        if utterance.ended:
            # All its slots are free already.
            return
        if not utterance.has_more(stage):
            self._networks.table(utterance, stage).free(utterance)
            return
        job = next((work.job for other, work in self._jobs if other is utterance and work.stage == stage), None)
        if utterance.parked or (job is not None and job.continues_from is None):
            # The window has slid and its whole prompt is read anew: more urgent work may take the slot.
            self._networks.table(utterance, stage).pause(utterance)

    def _continue(self, utterance: Utterance) -> None:
        """Collect the next work, or report the end."""
        if utterance.result is None:
            self._collect_work(utterance)
            return
        self._forget(utterance)
        self._events.append(Done(utterance, utterance.result))

    def _collect_work(self, utterance: Utterance) -> None:
        while (work := utterance.next_work()) is not None:
            if isinstance(work, Decode):
                self._jobs.append((utterance, work))
            else:
                self._other.append((utterance, work))

    @contextmanager
    def _timed(self, utterance: Utterance) -> Iterator[None]:
        """The block is work for this utterance only."""
        start = self._clock()
        yield
        if utterance.live:
            self._pace.count_own(self._clock() - start)

    @contextmanager
    def _isolated(self, utterance: Utterance) -> Iterator[None]:
        """An error in the block ends this utterance and no other, unless the device is lost."""
        try:
            yield
        except Exception as error:
            # An engine may raise anything, torch's errors among it; the utterance's caller gets it.
            if loses_device(error):
                raise
            self._fail(utterance, error)

    def _fail(self, utterance: Utterance, error: Exception) -> None:
        if not isinstance(error, BarkfastError):
            failure = EngineError(f"the request failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            error = failure
        utterance.fail(error)
        self._forget(utterance)
        self._events.append(Failed(utterance, error))

    def _forget(self, utterance: Utterance) -> None:
        """Free all that an ended utterance holds here."""
        self._live.pop(utterance, None)
        self._codec_streams.pop(utterance, None)
        self._pace.forget(utterance)
        self._queued = [other for other in self._queued if other is not utterance]
        self._jobs = [entry for entry in self._jobs if entry[0] is not utterance]
        self._other = [entry for entry in self._other if entry[0] is not utterance]
        self._networks.release(utterance)
