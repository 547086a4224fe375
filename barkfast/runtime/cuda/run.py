"""Runs a list of jobs, as many at a time as there are slots; the host stays one graph replay behind the device."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from barkfast.errors import InputError
from barkfast.jobs import Job
from barkfast.runtime.cuda.state import Snapshot
from barkfast.runtime.decoder import not_finite
from barkfast_kernels.slots import FAILED, FINISHED, RUNNING, STOPPED

# Decode steps in one graph. More steps amortize the gap between two graphs better, but the end of a job at its stop
# token is noticed later: by up to twice this number of steps.
STEPS_PER_REPLAY = 4


@dataclass(slots=True)
class ActiveJob:
    """A job in its slot.

    Args:
        forced: tokens at its start that an earlier job drew; they are fed again and are not part of its result.
        since: number of the first snapshot that includes it.
        launched: tokens drawn, forced ones included, once all launches have run, unless the job stops earlier.
        reported: number of tokens returned so far.
        done: no more tokens follow.
        finished: all its tokens were drawn, so that a later job may continue its cache.
    """

    job: Job
    forced: int
    since: int
    launched: int = 0
    reported: int = 0
    done: bool = False
    finished: bool = False

    @property
    def limit(self) -> int:
        return self.forced + self.job.steps


class Slots(Protocol):
    """What `Run` needs of a CudaDecoder."""

    stage: str
    dtype: torch.dtype
    n_slots: int
    active: dict[int, ActiveJob]
    n_snapshots: int

    def admit(self, job: Job) -> int: ...
    def fits_vocabulary(self, job: Job) -> bool: ...
    def launch(self, slots: Sequence[int], n: int) -> None: ...
    def take_snapshot(self) -> Snapshot: ...
    def release(self, slot: int) -> None: ...


class Run:
    """One call of `run`: the waiting jobs, the running jobs by slot, and the snapshots in flight."""

    def __init__(self, decoder: Slots, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None) -> None:
        self.decoder, self.jobs, self.on_token = decoder, jobs, on_token
        self.results: list[Any] = [None] * len(jobs)
        self.waiting = deque(range(len(jobs)))
        self.in_use: dict[int, int] = {}
        self.in_flight: deque[Snapshot] = deque()

    def go_on(self) -> bool:
        """Admit the jobs that fit, launch once, process the previous snapshot; return False when all is done."""
        decoder = self.decoder
        while self.waiting and len(self.in_use) < decoder.n_slots and self._fits(self.waiting[0]):
            index = self.waiting.popleft()
            try:
                self.in_use[decoder.admit(self.jobs[index])] = index
            except InputError as error:
                self.results[index] = error
        if not self.in_use:
            return bool(self.waiting)
        jobs = {slot: decoder.active[slot] for slot in self.in_use}
        left = {slot: job.limit - job.launched for slot, job in jobs.items() if job.launched < job.limit}
        if left:
            decoder.launch(list(left), STEPS_PER_REPLAY if max(left.values()) >= STEPS_PER_REPLAY else 1)
        if left or any(job.since > decoder.n_snapshots for job in jobs.values()):
            self.in_flight.append(decoder.take_snapshot())
        if len(self.in_flight) > 1 or not left:
            snapshot = self.in_flight.popleft()
            snapshot.wait()
            self._settle(snapshot)
        return bool(self.in_use or self.waiting)

    def _fits(self, index: int) -> bool:
        return not self.in_use or self.decoder.fits_vocabulary(self.jobs[index])

    def _settle(self, snapshot: Snapshot) -> None:
        for slot, index in list(self.in_use.items()):
            active = self.decoder.active[slot]
            if snapshot.number < active.since:
                continue
            status, drawn = snapshot.status(slot), snapshot.drawn(slot)
            end = drawn - (status == STOPPED.value)
            if self.on_token is not None and end - active.forced > active.reported:
                active.reported = end - active.forced
                self.on_token(index, active.reported)
            if status == RUNNING.value:
                continue
            if status == FAILED.value:
                step = drawn - active.forced + 1
                self.results[index] = not_finite(self.decoder.stage, step, self.decoder.dtype)
            else:
                self.results[index] = snapshot.tokens(slot, active.forced, end).numpy()
                active.finished = status == FINISHED.value
            del self.in_use[slot]
            self.decoder.release(slot)
