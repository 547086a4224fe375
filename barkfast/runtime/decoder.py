"""The contract every engine fulfils."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from barkfast.config import FineConfig, GPTConfig
from barkfast.errors import BarkfastError, EngineError, InputError
from barkfast.jobs import FineJob, Job
from barkfast.runtime.codec_stream import CodecStream
from barkfast.runtime.face import CodecFace, NetworkFace

# Sequences that a decoder runs at a time, at most.
MAX_SLOTS = 64


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did for one slot: the token it drew (None if that was the stop), and whether the job ended.

    With `error` the job ended because it failed; the other slots' did not.
    """

    slot: int
    token: int | None
    done: bool
    error: EngineError | None = None


def check_slots(n_slots: int) -> None:
    """Refuse a number of slots that no decoder has."""
    if not 1 <= n_slots <= MAX_SLOTS:
        raise InputError(f"n_slots is {n_slots}; expected 1 to {MAX_SLOTS} sequences at a time")


def check_job(job: Job, config: GPTConfig) -> None:
    """Refuse a job that the network cannot run."""
    context = len(job.prompt) - job.n_merged
    if context < 1 or job.steps < 1:
        raise InputError(f"a job of {context} positions and {job.steps} steps; expected at least one of each")
    positions = context + job.steps - 1
    if positions > config.block_size:
        raise InputError(
            f"a prompt of {context} positions and {job.steps} steps need {positions} positions, "
            f"but the network has {config.block_size}"
        )
    if not 0 <= job.prompt.min() <= job.prompt.max() < config.input_vocab_size:
        raise InputError(
            f"token ids {job.prompt.min()}..{job.prompt.max()} do not fit the network's vocabulary of "
            f"{config.input_vocab_size}; does the tokenizer belong to this model?"
        )


def check_window(window: np.ndarray, config: FineConfig) -> None:
    """Refuse a window, (frames, codebooks), that the fine network cannot take."""
    length, n_codebooks = window.shape
    if length > config.block_size or n_codebooks != config.n_codes_total:
        raise InputError(
            f"a window of {length} frames and {n_codebooks} codebooks does not fit the fine network's "
            f"{config.block_size} positions and {config.n_codes_total} codebooks"
        )


def check_codebook(codebook: int, config: FineConfig) -> None:
    """Refuse a codebook that the fine network does not predict."""
    if not config.n_codes_given <= codebook < config.n_codes_total:
        raise InputError(
            f"codebook {codebook} cannot be predicted; expected {config.n_codes_given} to {config.n_codes_total - 1}"
        )


def not_finite(stage: str, step: int | None, dtype: object) -> EngineError:
    """The error for logits that hold NaN or infinity."""
    where = f"the {stage} network's logits" + (f" at step {step}" if step is not None else "")
    return EngineError(
        f"{where} are not finite: its weights hold NaN or infinity, or {dtype} is too small for them; "
        "try dtype='float32'"
    )


def still_seated(stage: str) -> EngineError:
    """The error for slots that were to change while they are used."""
    return EngineError(f"the {stage} network's slots cannot change while it has jobs; release them first")


# What CUDA says once a device has failed: every later call in this process fails, too.
_LOST_DEVICE = ("CUDA error", "cudaError", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED")


def loses_device(error: BaseException) -> bool:
    """Whether an error means that the device can do no more work, for anybody, until the process is started anew."""
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    # torch has the class since 2.8.
    kind = getattr(torch, "AcceleratorError", ())
    return isinstance(error, kind) or any(sign in str(error) for sign in _LOST_DEVICE)


def job_failed(stage: str, error: Exception) -> EngineError:
    """The error for a job that the `stage` network failed at, and no other."""
    failure = EngineError(f"the {stage} network failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def no_logits(slot: int) -> EngineError:
    """The error for logits that were asked for when they are not there."""
    return EngineError(f"slot {slot} has no logits to show; they are there right after a step that drew for it")


def find_root(job: Job) -> Job:
    """The job at the start of a chain of extensions."""
    while job.continues_from is not None:
        job = job.continues_from
    return job


class KeptSlots(OrderedDict[int, Job]):
    """Slots whose finished job's cache may still be extended, the oldest first, and those jobs."""

    def take(self, job: Job) -> int | None:
        """The slot whose cache `job` extends, no longer kept; None if there is none."""
        for slot, kept in self.items():
            if job.continues_from is kept and len(job.prompt) == len(kept.prompt) + kept.steps:
                del self[slot]
                return slot
        return None

    def find_free(self, n_slots: int, seated: Container[int]) -> int:
        """A slot that is neither seated nor kept, or else the one that was kept longest. At least one is not seated."""
        for slot in range(n_slots):
            if slot not in seated and slot not in self:
                return slot
        return self.popitem(last=False)[0]


class Network(NetworkFace, ABC):
    """What the three kinds below have in common.

    Attributes:
        engine: the name of the engine that runs it.
        fallback: why it is not the engine that was to run it; None if it is.
    """

    engine = "torch"
    fallback: str | None = None

    @abstractmethod
    def to(self, device: str) -> Any:
        """Move the weights, e.g. to the CPU between uses; returns this object, as torch modules do."""


class Decoder(Network):
    """Runs a GPT: jobs in, tokens out. Slots are admitted and released between steps."""

    @abstractmethod
    def admit(self, job: Job) -> int:
        """Take a job in and return its slot; the slot is stepped from then on, until its job is done or released."""

    # Up to as many slots, a job draws the tokens that it draws in a decoder of one slot.
    same_tokens_slots = MAX_SLOTS

    @abstractmethod
    def step(self, seconds: float = 0.0) -> list[Step]:
        """Advance every slot whose job is not done by one token, or by several where that is cheaper.

        Args:
            seconds: engines that gain by several tokens at a time may draw for so long, and no longer than until the
                first job ends. 0 for one token.
        Returns: the steps in the order in which they were done; of a slot maybe several.
        """

    @abstractmethod
    def release(self, slot: int) -> None:
        """Free a slot; an unfinished job ends here."""

    @abstractmethod
    def logits(self, slot: int) -> np.ndarray:
        """What the last step drew from for this slot: (n,) float32 logits of its slice, then of the stop token, if any.

        They are there right after `step`, for the slots that drew a token in it or stopped, and until another prompt
        is admitted. Errors: EngineError for a slot without.
        """

    def resize(self, n_slots: int) -> None:
        """Have `n_slots` slots from now on, on the weights that are there; caches that could be extended are lost.

        Engines that allocate their slots do it anew; others take as many sequences as there is memory for.
        Errors: InputError for an impossible number; EngineError while jobs are admitted, and without memory.
        """
        check_slots(n_slots)

    def run(
        self,
        jobs: Sequence[Job],
        on_token: Callable[[int, int], None] | None = None,
        *,
        keep_errors: bool = False,
    ) -> list[Any]:
        """Run jobs to their end and return their tokens as int32 arrays.

        Args:
            on_token: called with (job index, tokens so far) as tokens come.
            keep_errors: a job that fails leaves its exception in its place, instead of raising it once the others
                are done.
        """
        results: list[np.ndarray | EngineError] = []
        for index, job in enumerate(jobs):
            tokens: list[int] = []
            error = None
            slot = self.admit(job)
            try:
                done = False
                while not done:
                    for step in self.step():
                        if step.slot != slot:
                            raise EngineError("run() was called while other jobs are admitted; step them to their end")
                        done, error = step.done, step.error
                        if step.token is not None:
                            tokens.append(step.token)
                            if on_token is not None:
                                on_token(index, len(tokens))
            finally:
                self.release(slot)
            results.append(error or np.array(tokens, dtype=np.int32))
        return results if keep_errors else raise_first(results)


def raise_first(results: Sequence[np.ndarray | BarkfastError]) -> list[np.ndarray]:
    """The results, unless one of them is an error."""
    arrays = []
    for result in results:
        if isinstance(result, BarkfastError):
            raise result
        arrays.append(result)
    return arrays


class Refiner(Network):
    """Runs the fine network: a window in, the window with its codebooks filled out."""

    @abstractmethod
    def refine(self, job: FineJob) -> np.ndarray:
        """Return the window, (frames, codebooks) int32, with the job's codebooks predicted from its first frame on."""

    @abstractmethod
    def logits(self, window: np.ndarray, codebook: int) -> np.ndarray:
        """Logits of one codebook in every frame of a window: (frames, codebooks) -> (frames, vocabulary) float32.

        The window holds what the network is to see: in the codebook itself the pad id, or an earlier prediction.
        Errors: InputError for a window or a codebook that the network cannot take.
        """


class Codec(CodecFace, Network):
    """Runs the codec's decoder."""

    @abstractmethod
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Turn (codebooks, frames) codes into (samples,) float32."""

    @abstractmethod
    def stream(self) -> CodecStream:
        """Begin a clip whose codes come piece by piece; any number may be under way."""
