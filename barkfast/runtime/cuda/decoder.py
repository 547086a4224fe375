"""Runs jobs on the GPU: slots, prefill, and decode steps replayed as CUDA graphs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barkfast.config import GPTConfig, Sampling
from barkfast.errors import BarkfastError, EngineError
from barkfast.jobs import Job
from barkfast.runtime.cuda.device import Options, on_device, upload
from barkfast.runtime.cuda.graphs import Graphs
from barkfast.runtime.cuda.network import Network, load_network
from barkfast.runtime.cuda.prefill import Prefill
from barkfast.runtime.cuda.run import STEPS_PER_REPLAY, ActiveJob, Run
from barkfast.runtime.cuda.state import Snapshot, State
from barkfast.runtime.cuda.step import VECTOR_ROWS, DecodeStep, Slices, Vocabulary
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
from barkfast_kernels.slots import FAILED, FINISHED, RUNNING, STOPPED, pack_slot

# Prompts are padded to multiples of this, so that a few graphs serve all lengths.
PROMPT_BUCKET = 64


class CudaDecoder(Decoder):
    """A GPT on the GPU.

    Args:
        tensors: the checkpoint's, under the names of barkfast.models.
        stage: semantic or coarse; part of the random numbers' key, and named in errors.
        device: where it runs.
        storage_device: where the weights are until `to(device)`; None for the device itself.
        dtype: storage of weights, activations and cache; sums are float32.
        int8: store the layers' matrices in int8, with a scale per output channel.
        n_slots: sequences at a time, 1 to 64. The cache is allocated for all of them.
        options: which kernels run, and how they are launched; None for those measured fastest on the device.
        network: weights that another decoder with the same settings has loaded, to share instead of loading them again.
    """

    engine = "cuda"
    # With more slots, other kernels multiply, which sum in another order.
    same_tokens_slots = VECTOR_ROWS

    def __init__(
        self,
        config: GPTConfig,
        tensors: Mapping[str, Tensor],
        *,
        stage: str,
        device: torch.device,
        dtype: torch.dtype,
        storage_device: torch.device | None = None,
        int8: bool = False,
        n_slots: int = 1,
        options: Options | None = None,
        network: Network | None = None,
    ) -> None:
        check_slots(n_slots)
        self.config, self.stage, self.device, self.n_slots = config, stage, device, n_slots
        self.options = options or Options.for_device(device, config=config, dtype=dtype, int8=int8, n_slots=n_slots)
        self.dtype = dtype
        self.active: dict[int, ActiveJob] = {}
        self._retained = RetainedSlots()
        self._network = network or load_network(
            config, tensors, device=storage_device or device, dtype=dtype, int8=int8
        )
        if (storage_device or device) == device:
            self._set_up()

    def _set_up(self) -> None:
        """Allocate all buffers on the device."""
        with on_device(self.device):
            network, device = self._network, self.device
            self.state = State.allocate(self.config, self.n_slots, device, network.dtype)
            self._prefill = Prefill(network, self.state)
            self._step = DecodeStep(network, self.state, stage=STAGE_KEYS[self.stage], options=self.options)
            self.graphs = Graphs(device, enabled=self.options.graphs)
            self._vocabularies: dict[tuple[Slices, int], Vocabulary] = {}
            self.vocabulary: Vocabulary | None = None
            self._row_lists: dict[int, tuple[list[int], Tensor]] = {}
            # Slot -> row of the vocabulary's logits, in the last launch only: it overwrites earlier logits.
            self._logit_rows: dict[int, int] = {}
            self._snapshots = [Snapshot(self.state), Snapshot(self.state)]
            self.n_snapshots = 0

    @property
    def weight_dtype(self) -> str:
        return "int8" if self._network.layers[0].qkv.scale is not None else self.storage_dtype

    def warm_up(self) -> None:
        """Compile the kernels by drawing two tokens, so that errors occur now rather than later."""
        self.run([Job(np.zeros(1, np.int32), 2, ((0, self.config.output_vocab_size),), Sampling(0))])
        # No other job uses these graphs.
        self.graphs.clear()
        self._vocabularies.clear()
        self.vocabulary = None

    def to(self, device: str) -> Any:
        target = torch.device(device)
        if target.type == self._network.wpe.device.type:
            return self
        if self.active:
            raise EngineError(f"the {self.stage} network cannot move to {device} while it has jobs; release them first")
        if target.type == self.device.type:
            self._network = self._network.to(self.device)
            self._set_up()
            return self
        self._tear_down()
        self._network = self._network.to(target)
        torch.cuda.empty_cache()
        return self

    def resize(self, n_slots: int) -> None:
        check_slots(n_slots)
        if self.active:
            raise slots_in_use(self.stage)
        before, self.n_slots = self.n_slots, n_slots
        if n_slots == before or self._network.wpe.device.type != self.device.type:
            return
        self._tear_down()
        try:
            self._set_up()
        except torch.OutOfMemoryError as error:
            self.n_slots = before
            torch.cuda.empty_cache()
            self._set_up()
            raise EngineError(
                f"no memory for {n_slots} slots of the {self.stage} network; use fewer, or a smaller dtype: {error}"
            ) from error

    def _tear_down(self) -> None:
        """Free all that `_set_up` allocated."""
        # Graphs first: they hold addresses of the other buffers.
        self.graphs.clear()
        self._retained.clear()
        del self.state, self._prefill, self._step, self.vocabulary, self._vocabularies, self._row_lists, self._snapshots

    def admit(self, job: Job) -> int:
        check_job(job, self.config)
        if len(self.active) == self.n_slots:
            raise slots_taken(self.stage, self.n_slots)
        with on_device(self.device):
            vocabulary, phase = self._use_vocabulary(job)
            kept = self._retained.take(job)
            slot = self._retained.find_free(self.n_slots, self.active) if kept is None else kept
            active = self.active[slot] = ActiveJob(job, 0, self.n_snapshots + 1)
            try:
                if kept is None:
                    self._read_prompt(slot, active, vocabulary, phase)
                else:
                    self._write_slot(slot, active, phase)
            except BaseException:
                # Also where Ctrl-C interrupts the launches.
                del self.active[slot]
                raise
        return slot

    def fits_vocabulary(self, job: Job) -> bool:
        """Whether the job draws from the current vocabulary, that of the admitted jobs."""
        current = self.vocabulary
        return current is not None and (
            current.ranges == _canonical(job.slices)[0] and (job.stop is None or job.stop.token == current.stop_row)
        )

    def _use_vocabulary(self, job: Job) -> tuple[Vocabulary, int]:
        """Make the job's slices the current vocabulary; return it, and the index of the slice that it starts with."""
        ranges, phase = _canonical(job.slices)
        if self.vocabulary is not None and self.fits_vocabulary(job):
            return self.vocabulary, phase
        if self.active:
            raise EngineError(
                f"a job that draws from {job.slices} with stop {job.stop} cannot run beside jobs that draw from "
                "something else; wait until they are done"
            )
        stop_row = job.stop.token if job.stop is not None else -1
        key = (ranges, stop_row)
        if key not in self._vocabularies:
            self._vocabularies[key] = Vocabulary.allocate(ranges, stop_row, self.n_slots, self.device)
        self.vocabulary = self._vocabularies[key]
        return self.vocabulary, phase

    def _write_slot(self, slot: int, active: ActiveJob, phase: int) -> None:
        job, sampling, stop = active.job, active.job.sampling, active.job.stop
        seed, first_draw = (0, 0) if sampling.greedy else Randomness.of(job.random).reserve(self.stage, job.steps)
        words = pack_slot(
            position=len(job.prompt) - active.forced - job.n_merged - 1,
            limit=active.limit,
            seed=seed,
            first_draw=first_draw - active.forced,
            phase=(phase - active.forced) % len(job.slices),
            temperature=float(sampling.temperature or 0),
            top_k=0 if sampling.greedy or sampling.top_k is None else min(int(sampling.top_k), 2**31 - 1),
            top_p=2.0 if sampling.greedy or sampling.top_p is None else float(sampling.top_p),
            min_p=2.0 if stop is None or stop.min_p is None else float(stop.min_p),
            has_stop=stop is not None,
            forced=active.forced,
        )
        upload(self.state.slots[slot], words)

    def _read_prompt(self, slot: int, active: ActiveJob, vocabulary: Vocabulary, phase: int) -> None:
        # If the cache to continue is gone, it is recomputed in the same steps, so that the tokens do not depend on what
        # this decoder did in between.
        root = find_root(active.job)
        active.forced = len(active.job.prompt) - len(root.prompt)
        self._write_slot(slot, active, phase)
        if active.forced:
            upload(
                self.state.tokens[slot, : active.forced], torch.from_numpy(active.job.prompt[-active.forced :].copy())
            )
        length = len(root.prompt) - root.n_merged
        prefill = self._prefill
        upload(prefill.tokens[: len(root.prompt)], torch.from_numpy(root.prompt.astype(np.int32)))
        upload(prefill.prompt, torch.tensor([slot, length, root.n_merged, 0], dtype=torch.int32))
        # Prompts with merged positions all have the same length.
        bucket = length if root.n_merged else min(-(-length // PROMPT_BUCKET) * PROMPT_BUCKET, self.config.block_size)
        filtered = self._filtered([slot])

        def work() -> None:
            prefill.run(bucket)
            self._step.draw(prefill.rows, vocabulary, filtered=filtered)

        self.graphs.run(("prompt", bucket, filtered, vocabulary.ranges, vocabulary.stop_row), work)
        self._logit_rows = {slot: 0}
        active.launched = 1
        while active.launched <= active.forced:
            self.launch([slot], 1)

    def _filtered(self, slots: Sequence[int]) -> bool:
        """Whether any of the jobs needs its probabilities filtered."""
        samplings = [self.active[slot].job.sampling for slot in slots]
        return any(not s.greedy and (s.top_k is not None or s.top_p is not None) for s in samplings)

    def launch(self, slots: Sequence[int], n: int) -> None:
        """Launch `n` steps for `slots` without waiting for them; slots whose jobs end earlier are skipped."""
        # The buffers have a row per slot, and the number of slots need not be a power of two.
        batch = min(1 << (len(slots) - 1).bit_length(), self.n_slots)
        rows = self._list_rows(sorted(slots), batch)
        filtered, vocabulary = self._filtered(slots), self.vocabulary
        if vocabulary is None:
            raise EngineError("launch() was called before a job was admitted")

        def work() -> None:
            for _ in range(n):
                self._step.run(rows, vocabulary, filtered=filtered)

        self.graphs.run(("step", batch, n, filtered, vocabulary.ranges, vocabulary.stop_row), work)
        self._logit_rows = {slot: row for row, slot in enumerate(sorted(slots))}
        for slot in slots:
            active = self.active[slot]
            active.launched = min(active.launched + n, active.limit)

    def _list_rows(self, slots: list[int], batch: int) -> Tensor:
        """The (batch,) int32 buffer, filled with `slots` and padded with -1."""
        if batch not in self._row_lists:
            self._row_lists[batch] = ([], torch.empty(batch, dtype=torch.int32, device=self.device))
        current, rows = self._row_lists[batch]
        if current != slots:
            # The content counts as unknown until the upload is done, in case it is interrupted.
            self._row_lists[batch] = ([], rows)
            upload(rows, torch.tensor(slots + [-1] * (batch - len(slots)), dtype=torch.int32))
            self._row_lists[batch] = (slots, rows)
        return rows

    def take_snapshot(self) -> Snapshot:
        """Start copying the slots' state, as all launches so far leave it, to the host; two copies can be in flight."""
        self.n_snapshots += 1
        return self._snapshots[self.n_snapshots % 2].take(self.state, self.n_snapshots)

    def step(self, seconds: float = 0.0) -> list[Step]:
        with on_device(self.device):
            live = {slot: active for slot, active in self.active.items() if not active.done}
            behind = [slot for slot, active in live.items() if active.launched == active.forced + active.reported]
            if behind:
                self.launch(behind, self._steps_at_once(behind) if seconds else 1)
            snapshot = self.take_snapshot()
            if seconds:
                # The device draws the next tokens while the host reads these.
                more = [slot for slot, active in live.items() if active.launched < active.limit]
                if more:
                    self.launch(more, self._steps_at_once(more))
            snapshot.wait()
        return [step for slot, active in live.items() for step in self._report(slot, active, snapshot)]

    def _steps_at_once(self, slots: Sequence[int]) -> int:
        """Steps of one replay, if any of the slots has that many left; else 1."""
        left = max(self.active[slot].limit - self.active[slot].launched for slot in slots)
        return STEPS_PER_REPLAY if left >= STEPS_PER_REPLAY else 1

    def _report(self, slot: int, active: ActiveJob, snapshot: Snapshot) -> list[Step]:
        """A step for each token in the snapshot that was not reported before, and for an end without a token."""
        status, drawn = snapshot.status(slot), snapshot.drawn(slot)
        end = drawn - (status == STOPPED.value)
        first = active.forced + active.reported
        steps = (
            [Step(slot, token, False) for token in snapshot.tokens(slot, first, end).tolist()] if end > first else []
        )
        active.done = status != RUNNING.value
        active.finished = status == FINISHED.value
        if status == FINISHED.value:
            steps[-1] = Step(slot, steps[-1].token, True)
        elif status == FAILED.value:
            steps.append(Step(slot, None, True, not_finite(self.stage, drawn - active.forced + 1, self.dtype)))
        elif status == STOPPED.value:
            steps.append(Step(slot, None, True))
        active.reported += len(steps)
        return steps

    def release(self, slot: int) -> None:
        active = self.active.pop(slot)
        if active.finished:
            self._retained[slot] = active.job

    def logits(self, slot: int) -> np.ndarray:
        active = self.active.get(slot)
        if active is None or not active.reported or slot not in self._logit_rows or self.vocabulary is None:
            raise no_logits(slot)
        first, end = active.job.slices[(active.reported - 1) % len(active.job.slices)]
        width = end - first + (active.job.stop is not None)
        with on_device(self.device):
            return self.vocabulary.logits[self._logit_rows[slot], :width].cpu().numpy().copy()

    def run_each(
        self, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None = None
    ) -> list[np.ndarray | BarkfastError]:
        if self.active:
            raise other_jobs_admitted()
        run = Run(self, jobs, on_token)
        try:
            with on_device(self.device):
                while run.go_on():
                    pass
        finally:
            for slot in list(self.active):
                self.release(slot)
        return run.results


def _canonical(slices: Slices) -> tuple[Slices, int]:
    """Slices rotated so that the smallest comes first, and the index there of the first given one.

    Jobs that alternate between the same slices but start on different ones can share a batch.
    """
    start = slices.index(min(slices))
    return slices[start:] + slices[:start], (len(slices) - start) % len(slices)
