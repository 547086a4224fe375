"""Runs jobs on the CPU: slots, prefill, and decode steps in native code."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barkfast.config import GPTConfig
from barkfast.errors import BarkfastError, EngineError, InputError
from barkfast.jobs import Job
from barkfast.native import native_errors
from barkfast.runtime.cpu.fork_lock import ForkLock
from barkfast.runtime.cpu.kv_cache import allocate_cache, unpack_cache
from barkfast.runtime.cpu.packing import Format, Packed, require_native
from barkfast.runtime.decoder import (
    Decoder,
    RetainedSlots,
    Step,
    check_job,
    check_slots,
    find_root,
    no_logits,
    not_finite,
    other_jobs_admitted,
    slots_in_use,
    slots_taken,
)
from barkfast.runtime.sampling import STAGE_KEYS, Randomness

# How often progress is reported, in seconds.
REPORT_INTERVAL = 0.05
# More steps than any job has.
NO_LIMIT = 2**31 - 1


class Status(IntEnum):
    """The status of a sequence; the values are those of the native module."""

    IDLE = 0
    RUNNING = 1
    FINISHED = 2
    STOPPED = 3
    FAILED = 4


@dataclass(slots=True)
class ActiveJob:
    """A job in its slot.

    Args:
        reported: number of tokens returned so far.
        done: no more tokens follow.
        finished: all its tokens were drawn, so that a later job may continue its cache.
    """

    job: Job
    reported: int = 0
    done: bool = False
    finished: bool = False


class CpuDecoder(Decoder):
    """A GPT in native code on the CPU.

    Several threads may use one decoder; it runs one call at a time. It stays usable in a forked child; if another
    thread was using it at the fork, its slots are empty in the child, and `step` reports their jobs as failed.

    Args:
        packed: its weights, see barkfast.runtime.cpu.packing.
        stage: semantic or coarse; part of the random numbers' key, and named in errors.
        pool: the native threads; decoders that share a pool alternate after about 50 ms.
        n_slots: sequences at a time, 1 to 64. The cache is allocated for all of them.
        dtype: the dtype of the packed weights, named in errors.
        isa: the instruction-set level; empty for $BARKFAST_CPU_ISA or else the best.
    """

    engine = "cpu"

    def __init__(
        self,
        config: GPTConfig,
        packed: Packed,
        *,
        stage: str,
        pool: Any,
        n_slots: int = 1,
        dtype: object = "float32",
        isa: str = "",
    ) -> None:
        check_slots(n_slots)
        self.config, self.stage, self.dtype = config, stage, dtype
        native = require_native()
        # Kept alive: the native objects read its memory.
        self.packed = packed
        with native_errors():
            self._native_network = native.Network(
                config.n_layer, config.n_head, config.n_embd, config.block_size, list(packed.entries)
            )
        self._pool, self._isa = pool, isa
        self._lock = ForkLock()
        self.active: dict[int, ActiveJob] = {}
        # Slots whose jobs ended at a fork, until they are released or used again.
        self._lost: set[int] = set()
        self._retained = RetainedSlots()
        self._allocate(n_slots)

    def _allocate(self, n_slots: int) -> None:
        """Allocate the slots, and only then free the previous ones."""
        keys, values = allocate_cache(self.config, n_slots, Format(self._native_network.cache_format))
        with native_errors():
            decoder = require_native().Decoder(
                self._native_network, self._pool, n_slots, keys.data_ptr(), values.data_ptr(), isa=self._isa
            )
        self._retained.clear()
        self.n_slots, self._native, self._keys, self._values = n_slots, decoder, keys, values

    @contextmanager
    def _acquire(self) -> Iterator[None]:
        with self._lock:
            if self._lock.abandoned:
                # At the fork, a thread that this process does not have was changing the slots.
                self._lost |= set(self.active)
                self.active = {}
                self._allocate(self.n_slots)
                self._lock.abandoned = False
            yield

    def resize(self, n_slots: int) -> None:
        check_slots(n_slots)
        with self._acquire():
            if self.active:
                raise slots_in_use(self.stage)
            if n_slots != self.n_slots:
                self._allocate(n_slots)

    def to(self, device: str) -> Any:
        if torch.device(device).type != "cpu":
            raise EngineError(
                f"the {self.stage} network is on the cpu engine and cannot move to {device}; "
                "build it with engine='cuda' or engine='torch' to use another device"
            )
        return self

    def admit(self, job: Job) -> int:
        with self._acquire():
            check_job(job, self.config)
            if len(self.active) == self.n_slots:
                raise slots_taken(self.stage, self.n_slots)
            slot = self._retained.take(job)
            if slot is None:
                slot = self._retained.find_free(self.n_slots, self.active)
                n_forced = self._read_prompt(slot, job)
            else:
                # The last drawn token is not in the cache yet.
                n_forced = 1
            self._start(slot, job, n_forced)
            self.active[slot] = ActiveJob(job)
            self._lost.discard(slot)
            return slot

    def _read_prompt(self, slot: int, job: Job) -> int:
        """Fill the slot's cache; return how many tokens at the prompt's end must still be fed one by one.

        If the cache to continue is gone, it is recomputed in the same steps, so that the tokens do not depend on what
        this decoder did in between.
        """
        root = find_root(job)
        with native_errors():
            self._native.prefill(slot, root.prompt.astype(np.int32), root.n_merged)
        return len(job.prompt) - len(root.prompt)

    def _start(self, slot: int, job: Job, n_forced: int) -> None:
        sampling, stop = job.sampling, job.stop
        seed, first_draw = (0, 0) if sampling.greedy else Randomness.of(job.random).reserve(self.stage, job.steps)
        with native_errors():
            self._native.start(
                slot,
                job.prompt[len(job.prompt) - n_forced :].astype(np.int32),
                job.steps,
                job.slices,
                temperature=float(sampling.temperature or 0),
                top_k=0 if sampling.top_k is None else min(int(sampling.top_k), 2**31 - 1),
                top_p=2.0 if sampling.top_p is None else float(sampling.top_p),
                seed=seed % 2**64,
                stage=STAGE_KEYS[self.stage],
                number=first_draw % 2**32,
                stop=None if stop is None else stop.token,
                min_p=2.0 if stop is None or stop.min_p is None else float(stop.min_p),
            )

    def step(self, seconds: float = 0.0) -> list[Step]:
        with self._acquire():
            live = {slot: active for slot, active in self.active.items() if not active.done}
            behind = list(live)
            while behind:
                # Forced tokens are fed first; nothing is drawn until then.
                self._advance(behind, NO_LIMIT if seconds else 1, seconds or math.inf)
                behind = [slot for slot in behind if self._state(slot) == (Status.RUNNING, live[slot].reported)]
            steps = [step for slot, active in live.items() for step in self._report(slot, active)]
            return steps + [_ended_by_fork(self.stage, slot) for slot in sorted(self._lost)]

    def _report(self, slot: int, active: ActiveJob) -> list[Step]:
        """A step for each token drawn since the last report, and for an end without a token."""
        status, drawn = self._state(slot)
        active.done = status != Status.RUNNING
        active.finished = status == Status.FINISHED
        tokens = self._native.tokens(slot)[active.reported : drawn].tolist()
        active.reported = drawn
        steps = [Step(slot, token, False) for token in tokens]
        if status == Status.FINISHED:
            steps[-1] = Step(slot, tokens[-1], True)
        elif status == Status.FAILED:
            steps.append(Step(slot, None, True, not_finite(self.stage, drawn + 1, self.dtype)))
        elif status == Status.STOPPED:
            steps.append(Step(slot, None, True))
        return steps

    def release(self, slot: int) -> None:
        with self._acquire():
            if slot in self._lost:
                self._lost.remove(slot)
                return
            active = self.active.pop(slot)
            self._native.pause(slot)
            if active.finished:
                self._retained[slot] = active.job

    def logits(self, slot: int) -> np.ndarray:
        with self._acquire():
            active = self.active.get(slot)
            # The native module would return those of the slot's previous job.
            if active is None or not (active.reported or active.done):
                raise no_logits(slot)
            try:
                return self._native.logits(slot)
            except ValueError as error:
                raise no_logits(slot) from error

    def run_each(
        self, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None = None
    ) -> list[np.ndarray | BarkfastError]:
        with self._acquire():
            if self.active:
                raise other_jobs_admitted()
            try:
                return self._run(jobs, on_token)
            finally:
                for slot in list(self.active):
                    self.release(slot)

    def _run(self, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None) -> list[Any]:
        results: list[Any] = [None] * len(jobs)
        waiting, in_use = deque(range(len(jobs))), dict[int, int]()
        while waiting or in_use:
            while waiting and len(in_use) < self.n_slots:
                index = waiting.popleft()
                try:
                    in_use[self.admit(jobs[index])] = index
                except InputError as error:
                    results[index] = error
            if in_use:
                self._advance(list(in_use), NO_LIMIT, math.inf if on_token is None else REPORT_INTERVAL)
            for slot, index in list(in_use.items()):
                active, (status, drawn) = self.active[slot], self._state(slot)
                if on_token is not None and drawn > active.reported:
                    active.reported = drawn
                    on_token(index, drawn)
                if status == Status.RUNNING:
                    continue
                if status == Status.FAILED:
                    results[index] = not_finite(self.stage, drawn + 1, self.dtype)
                else:
                    results[index] = self._native.tokens(slot)
                    active.finished = status == Status.FINISHED
                del in_use[slot]
                self.release(slot)
        return results

    def _advance(self, slots: list[int], max_steps: int, seconds: float) -> None:
        with native_errors():
            self._native.advance(slots, max_steps, seconds)

    def _state(self, slot: int) -> tuple[Status, int]:
        """The status of the slot's sequence, and how many tokens it has drawn."""
        status, drawn = self._native.state(slot)
        return Status(status), drawn

    def read_cache(self, slot: int) -> tuple[Tensor, Tensor]:
        """Copies of a slot's keys and values so far, each (n_layer, n_head, positions, head_dim)."""
        with self._acquire():
            length = self._native.length(slot)
            keys, values = unpack_cache(self._keys, self._values, slot, self.config.head_dim)
            return keys[:, :, :length], values[:, :, :length]


def _ended_by_fork(stage: str, slot: int) -> Step:
    error = EngineError(
        f"the {stage} network was at work in another thread when this process was forked; run the job again here"
    )
    return Step(slot, None, done=True, error=error)
