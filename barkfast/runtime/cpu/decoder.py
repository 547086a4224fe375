"""Jobs on the CPU: slots, prompts, and steps in native code."""

import math
import threading
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
from barkfast.errors import EngineError, InputError
from barkfast.jobs import Job
from barkfast.runtime.cpu.packing import Format, Packed, require_native
from barkfast.runtime.decoder import (
    MAX_SLOTS,
    Decoder,
    KeptSlots,
    Step,
    check_job,
    check_slots,
    find_root,
    no_logits,
    not_finite,
    raise_first,
    still_seated,
)
from barkfast.runtime.sampling import STAGE_KEYS, Randomness

# How often progress is reported, in seconds.
REPORT_INTERVAL = 0.05
# More steps than any job has.
NO_LIMIT = 2**31 - 1


class Status(IntEnum):
    """What became of a sequence; the values are those of the native module."""

    IDLE = 0
    RUNNING = 1
    FINISHED = 2
    STOPPED = 3
    FAILED = 4


@dataclass(slots=True)
class Seat:
    """A job in its slot.

    Args:
        reported: tokens handed out.
        done: nothing more will come.
        finished: all its tokens were drawn, so that its cache may be extended.
    """

    job: Job
    reported: int = 0
    done: bool = False
    finished: bool = False


class CpuDecoder(Decoder):
    """A GPT in native code on the CPU.

    Several threads may use one decoder: they take turns.

    Args:
        packed: its weights, see barkfast.runtime.cpu.packing.
        stage: semantic or coarse; keys the random numbers and is named in errors.
        pool: the native threads; decoders that share one take turns of about 50 ms.
        n_slots: sequences at a time, 1 to 64. The cache is allocated for all of them.
        dtype: what the weights were packed as, to be named in errors.
        isa: the instruction-set level; empty for $BARKFAST_CPU_ISA or else the best.
    """

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
        # The native objects read its memory.
        self._packed = packed
        with _refusals():
            self._native_network = native.Network(
                config.n_layer, config.n_head, config.n_embd, config.block_size, list(packed.entries)
            )
        self._pool, self._isa = pool, isa
        self._turn = threading.RLock()
        self.seats: dict[int, Seat] = {}
        self._kept = KeptSlots()
        self._allocate(n_slots)

    def _allocate(self, n_slots: int) -> None:
        """Make the slots, and then forget those there were."""
        keys, values = _allocate_cache(self.config, n_slots, Format(self._native_network.cache_format))
        with _refusals():
            decoder = require_native().Decoder(
                self._native_network, self._pool, n_slots, keys.data_ptr(), values.data_ptr(), isa=self._isa
            )
        self._kept.clear()
        self.n_slots, self._native, self._keys, self._values = n_slots, decoder, keys, values

    def resize(self, n_slots: int) -> None:
        check_slots(n_slots)
        with self._turn:
            if self.seats:
                raise still_seated(self.stage)
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
        with self._turn:
            check_job(job, self.config)
            if len(self.seats) == self.n_slots:
                raise EngineError(
                    f"all {self.n_slots} slots of the {self.stage} network are taken; release one, "
                    f"or build the decoder with n_slots up to {MAX_SLOTS}"
                )
            slot = self._kept.take(job)
            if slot is None:
                slot = self._kept.find_free(self.n_slots, self.seats)
                n_forced = self._read_prompt(slot, job)
            else:
                # The token drawn last has not been read yet.
                n_forced = 1
            self._start(slot, job, n_forced)
            self.seats[slot] = Seat(job)
            return slot

    def _read_prompt(self, slot: int, job: Job) -> int:
        """Fill the slot's cache; returns how many tokens at the prompt's end are still to be read one by one.

        Where the cache to be extended is gone it is made again in the same steps, so that the tokens are the same
        whatever else this decoder did in between.
        """
        root = find_root(job)
        with _refusals():
            self._native.prefill(slot, root.prompt.astype(np.int32), root.merged)
        return len(job.prompt) - len(root.prompt)

    def _start(self, slot: int, job: Job, n_forced: int) -> None:
        sampling, stop = job.sampling, job.stop
        seed, first_draw = (0, 0) if sampling.greedy else Randomness.of(job.random).reserve(self.stage, job.steps)
        with _refusals():
            self._native.seat(
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

    def step(self) -> list[Step]:
        with self._turn:
            live = {slot: seat for slot, seat in self.seats.items() if not seat.done}
            behind = list(live)
            while behind:
                self._advance(behind, 1, math.inf)
                behind = [slot for slot in behind if self._state(slot) == (Status.RUNNING, live[slot].reported)]
            return [self._report(slot, seat) for slot, seat in live.items()]

    def _report(self, slot: int, seat: Seat) -> Step:
        status, drawn = self._state(slot)
        seat.done = status != Status.RUNNING
        seat.finished = status == Status.FINISHED
        if status == Status.FAILED:
            return Step(slot, None, done=True, error=not_finite(self.stage, drawn + 1, self.dtype))
        if status == Status.STOPPED:
            return Step(slot, None, done=True)
        seat.reported = drawn
        return Step(slot, int(self._native.tokens(slot)[-1]), seat.done)

    def release(self, slot: int) -> None:
        with self._turn:
            seat = self.seats.pop(slot)
            self._native.rest(slot)
            if seat.finished:
                self._kept[slot] = seat.job

    def logits(self, slot: int) -> np.ndarray:
        with self._turn:
            seat = self.seats.get(slot)
            # The native module would show those of the job that had the slot before.
            if seat is None or not (seat.reported or seat.done):
                raise no_logits(slot)
            try:
                return self._native.logits(slot)
            except ValueError as error:
                raise no_logits(slot) from error

    def run(
        self,
        jobs: Sequence[Job],
        on_token: Callable[[int, int], None] | None = None,
        *,
        keep_errors: bool = False,
    ) -> list[Any]:
        with self._turn:
            if self.seats:
                raise EngineError("run() was called while other jobs are admitted; step them to their end")
            try:
                results = self._run(jobs, on_token)
            finally:
                for slot in list(self.seats):
                    self.release(slot)
        return results if keep_errors else raise_first(results)

    def _run(self, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None) -> list[Any]:
        results: list[Any] = [None] * len(jobs)
        waiting, seated = deque(range(len(jobs))), dict[int, int]()
        while waiting or seated:
            while waiting and len(seated) < self.n_slots:
                index = waiting.popleft()
                try:
                    seated[self.admit(jobs[index])] = index
                except InputError as error:
                    results[index] = error
            if seated:
                self._advance(list(seated), NO_LIMIT, math.inf if on_token is None else REPORT_INTERVAL)
            for slot, index in list(seated.items()):
                seat, (status, drawn) = self.seats[slot], self._state(slot)
                if on_token is not None and drawn > seat.reported:
                    seat.reported = drawn
                    on_token(index, drawn)
                if status == Status.RUNNING:
                    continue
                if status == Status.FAILED:
                    results[index] = not_finite(self.stage, drawn + 1, self.dtype)
                else:
                    results[index] = self._native.tokens(slot)
                    seat.finished = status == Status.FINISHED
                del seated[slot]
                self.release(slot)
        return results

    def _advance(self, slots: list[int], max_steps: int, seconds: float) -> None:
        self._native.advance(slots, max_steps, seconds)

    def _state(self, slot: int) -> tuple[Status, int]:
        """What became of the slot's sequence so far, and how many tokens it has drawn."""
        status, drawn = self._native.state(slot)
        return Status(status), drawn

    def read_cache(self, slot: int) -> tuple[Tensor, Tensor]:
        """Copies of a slot's keys and values so far, each (n_layer, n_head, positions, head_dim)."""
        layers, _, heads, size = self._keys.shape
        dim, pair = self.config.head_dim, 1 if self._keys.dtype == torch.float32 else 2
        capacity, length = size // dim, self._native.length(slot)
        keys = self._keys[:, slot].view(layers, heads, capacity // 16, dim // pair, 16, pair)
        values = self._values[:, slot].view(layers, heads, dim // 16, capacity // pair, 16, pair)
        shape = (layers, heads, capacity, dim)
        keys = keys.permute(0, 1, 2, 4, 3, 5).reshape(shape)
        values = values.permute(0, 1, 3, 5, 2, 4).reshape(shape)
        return keys[:, :, :length], values[:, :, :length]


def _allocate_cache(config: GPTConfig, n_slots: int, format: Format) -> tuple[Tensor, Tensor]:
    """Memory for keys and values, (n_layer, n_slots, n_head, capacity * head_dim) each; csrc's kv.h says what is where.

    Errors: EngineError naming the size.
    """
    capacity = require_native().cache_capacity(config.block_size)
    shape = (config.n_layer, n_slots, config.n_head, capacity * config.head_dim)
    dtype = torch.float32 if format == Format.F32 else torch.bfloat16
    try:
        return torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    except RuntimeError as error:
        size = 2 * math.prod(shape) * dtype.itemsize
        raise EngineError(f"no {size / 2**20:.0f} MiB of memory for the cache of {n_slots} slots: {error}") from error


@contextmanager
def _refusals() -> Iterator[None]:
    """The native module's errors as barkfast's."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error
    except MemoryError as error:
        raise EngineError(
            "no memory left for the decoder's buffers; use fewer slots, or close other programs"
        ) from error
