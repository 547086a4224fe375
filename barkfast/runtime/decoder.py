"""The interface that every engine implements."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from barkfast.config import CodecConfig, FineConfig, GPTConfig
from barkfast.errors import BarkfastError, EngineError, InputError
from barkfast.jobs import FineJob, Job
from barkfast.runtime.module_compat import CodecCompat, NetworkCompat

# Most sequences that a decoder runs at a time.
MAX_SLOTS = 64


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step for one slot: the token drawn (None after a stop or an error), and whether the job ended.

    With `error`, the job ended because it failed; jobs in other slots are not affected.
    """

    slot: int
    token: int | None
    done: bool
    error: EngineError | None = None


def check_slots(n_slots: int) -> None:
    """Raise InputError unless `n_slots` is 1 to MAX_SLOTS."""
    if not 1 <= n_slots <= MAX_SLOTS:
        raise InputError(f"n_slots is {n_slots}; expected 1 to {MAX_SLOTS} sequences at a time")


def check_job(job: Job, config: GPTConfig) -> None:
    """Raise InputError for a job that the network cannot run."""
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
    """Raise InputError for a window, (frames, codebooks), that the fine network cannot take."""
    length, n_codebooks = window.shape
    if length > config.block_size or n_codebooks != config.n_codes_total:
        raise InputError(
            f"a window of {length} frames and {n_codebooks} codebooks does not fit the fine network's "
            f"{config.block_size} positions and {config.n_codes_total} codebooks"
        )


def check_codebook(codebook: int, config: FineConfig) -> None:
    """Raise InputError for a codebook that the fine network does not predict."""
    if not config.n_codes_given <= codebook < config.n_codes_total:
        raise InputError(
            f"codebook {codebook} cannot be predicted; expected {config.n_codes_given} to {config.n_codes_total - 1}"
        )


def check_codes(codes: np.ndarray, config: CodecConfig) -> np.ndarray:
    """Return the codes as int32. Raises: InputError if they are not (codebooks, frames) or out of range."""
    if codes.ndim != 2 or not 1 <= len(codes) <= config.n_codebooks or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"codes are {codes.dtype} of shape {codes.shape}; expected integers, "
            f"(up to {config.n_codebooks} codebooks, frames)"
        )
    if codes.size and not 0 <= codes.min() <= codes.max() < config.codebook_size:
        raise InputError(
            f"codes {codes.min()}..{codes.max()} do not fit the codec's codebooks of {config.codebook_size} entries"
        )
    return np.ascontiguousarray(codes, np.int32)


def not_finite(stage: str, step: int | None, dtype: object) -> EngineError:
    """The error for logits with NaN or infinity."""
    where = f"the {stage} network's logits" + (f" at step {step}" if step is not None else "")
    return EngineError(
        f"{where} are not finite: its weights hold NaN or infinity, or {dtype} is too small for them; "
        "try dtype='float32'"
    )


def slots_taken(stage: str, n_slots: int) -> EngineError:
    """The error for admitting a job while others use all slots."""
    return EngineError(
        f"all {n_slots} slots of the {stage} network are taken; release one, "
        f"or build the decoder with n_slots up to {MAX_SLOTS}"
    )


def other_jobs_admitted() -> EngineError:
    """The error for `run` while jobs are admitted."""
    return EngineError("run() was called while other jobs are admitted; step them to their end")


def slots_in_use(stage: str) -> EngineError:
    """The error for changing the number of slots while jobs use them."""
    return EngineError(f"the {stage} network's slots cannot change while it has jobs; release them first")


# Messages of sticky CUDA errors: after one, every later call in this process fails too.
_LOST_DEVICE = ("CUDA error", "cudaError", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED")


def loses_device(error: BaseException) -> bool:
    """Whether after this error nothing can use the device any more until the process is restarted."""
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    # torch 2.8 introduced the class.
    kind = getattr(torch, "AcceleratorError", ())
    return isinstance(error, kind) or any(sign in str(error) for sign in _LOST_DEVICE)


def job_failed(stage: str, error: Exception) -> EngineError:
    """The error for one failed job of the `stage` network; other jobs go on."""
    failure = EngineError(f"the {stage} network failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def no_logits(slot: int) -> EngineError:
    """The error for requested logits that are not available."""
    return EngineError(f"slot {slot} has no logits to show; they are there right after a step that drew for it")


def find_root(job: Job) -> Job:
    """The first job of the chain that `continues_from` links."""
    while job.continues_from is not None:
        job = job.continues_from
    return job


class RetainedSlots(OrderedDict[int, Job]):
    """Released slots whose KV cache a later job may continue, oldest first, each with the job that filled it."""

    def take(self, job: Job) -> int | None:
        """Remove and return the slot whose cache `job` continues; None if there is none."""
        for slot, kept in self.items():
            if job.continues_from is kept and len(job.prompt) == len(kept.prompt) + kept.steps:
                del self[slot]
                return slot
        return None

    def find_free(self, n_slots: int, in_use: Container[int]) -> int:
        """A slot that is neither in use nor retained, else the one retained longest. At least one is not in use."""
        for slot in range(n_slots):
            if slot not in in_use and slot not in self:
                return slot
        return self.popitem(last=False)[0]


class Network(NetworkCompat, ABC):
    """The common base of Decoder, Refiner and Codec.

    Attributes:
        engine: the name of the engine that runs it.
        fallback: why the torch engine runs it instead of the device's own; None without a fallback.
    """

    engine = "torch"
    fallback: str | None = None

    @abstractmethod
    def to(self, device: str) -> Any:
        """Move the weights, e.g. to the CPU between uses; return this object, as torch modules do."""


class Decoder(Network):
    """Runs a GPT: jobs in, tokens out. Jobs are admitted and released between steps.

    Attributes:
        config: the network's sizes.
    """

    config: GPTConfig

    @property
    def storage_dtype(self) -> str:
        """The dtype of all but quantized matrices, one of barkfast.config.DTYPES."""
        return str(getattr(self, "dtype", "float32")).removeprefix("torch.")

    @property
    def weight_dtype(self) -> str:
        """The dtype of the matrices, one of barkfast.config.DTYPES."""
        return self.storage_dtype

    @abstractmethod
    def admit(self, job: Job) -> int:
        """Admit a job and return its slot; `step` advances the slot until its job is done or released."""

    # With up to this many slots, a job draws the same tokens as in a decoder of one slot.
    same_tokens_slots = MAX_SLOTS

    @abstractmethod
    def step(self, seconds: float = 0.0) -> list[Step]:
        """Advance every slot whose job is not done by one token, or by several where that is cheaper.

        Args:
            seconds: time limit for engines that are faster with several tokens per call; they also stop when the
                first job ends. 0 for one token.

        Returns: the steps; a slot may have several, in the order in which they were done.
        """

    @abstractmethod
    def release(self, slot: int) -> None:
        """Free a slot; an unfinished job ends here."""

    @abstractmethod
    def logits(self, slot: int) -> np.ndarray:
        """The logits of this slot's last draw: (n,) float32, those of its slice, then the stop token's, if any.

        Available after `step`, for slots that drew a token or stopped in it, until another job is admitted.

        Raises: EngineError for a slot without logits.
        """

    def resize(self, n_slots: int) -> None:
        """Change the number of slots; the weights stay loaded, retained caches may be lost.

        Engines that preallocate slots reallocate them; others run as many sequences as there is memory for.

        Raises: InputError for an impossible number; EngineError while jobs are admitted, or without memory.
        """
        check_slots(n_slots)

    def run(self, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None = None) -> list[np.ndarray]:
        """Run jobs to their end and return their tokens as int32 arrays. Args: as `run_each`.

        Raises:
            BarkfastError: the first error, after all jobs are done.
        """
        results = self.run_each(jobs, on_token)
        for result in results:
            if isinstance(result, BarkfastError):
                raise result
        return results  # type: ignore[return-value]

    def run_each(
        self, jobs: Sequence[Job], on_token: Callable[[int, int], None] | None = None
    ) -> list[np.ndarray | BarkfastError]:
        """Run jobs to their end and return the tokens of each as an int32 array, or its error.

        Args:
            on_token: called with (job index, number of tokens so far) as tokens are drawn.
        """
        results: list[np.ndarray | BarkfastError] = []
        for index, job in enumerate(jobs):
            tokens: list[int] = []
            error = None
            slot = self.admit(job)
            try:
                done = False
                while not done:
                    for step in self.step():
                        if step.slot != slot:
                            raise other_jobs_admitted()
                        done, error = step.done, step.error
                        if step.token is not None:
                            tokens.append(step.token)
                            if on_token is not None:
                                on_token(index, len(tokens))
            finally:
                self.release(slot)
            results.append(error or np.array(tokens, dtype=np.int32))
        return results


class Refiner(Network):
    """Runs the fine network: a window in, the window with its codebooks filled in."""

    @abstractmethod
    def refine(self, job: FineJob) -> np.ndarray:
        """Return the window, (frames, codebooks) int32, with the job's codebooks predicted from its first frame on."""

    @abstractmethod
    def logits(self, window: np.ndarray, codebook: int) -> np.ndarray:
        """Logits of one codebook in every frame of a window: (frames, codebooks) -> (frames, vocabulary) float32.

        The window is the network's input; the codebook itself holds the pad id or an earlier prediction.

        Raises: InputError for a window or a codebook that the network cannot take.
        """


class CodecStream(ABC):
    """One clip, decoded as its codes arrive: all samples together are those of `Codec.decode`.

    At the clip's start each layer pads with a reflection of its next inputs, so the first samples need `lead_in` frames
    (7 in EnCodec, 93 ms); after that every push returns the samples of all its frames.

    Args:
        lead_in: frames needed for the first samples; None for a codec with lookahead, which returns all at the end.
    """

    def __init__(self, config: CodecConfig, lead_in: int | None) -> None:
        self.config, self.lead_in = config, lead_in
        self._codebooks: int | None = None
        self._finished = False

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Decode (codebooks, frames) codes, as many codebooks in every call; return (samples,) float32, maybe none.

        Raises: InputError for other shapes, for codes out of range, and after `finish`; the stream stays usable.
        """
        self._check_open()
        codes = check_codes(codes, self.config)
        if self._codebooks not in (None, len(codes)):
            raise InputError(f"codes of {len(codes)} codebooks after {self._codebooks} in the same stream")
        self._codebooks = len(codes)
        return self._push(codes)

    def finish(self) -> np.ndarray:
        """End the clip and return the remaining (samples,) float32: all of them for a clip shorter than `lead_in`."""
        self._check_open()
        self._finished = True
        return self._finish()

    @abstractmethod
    def _push(self, codes: np.ndarray) -> np.ndarray:
        """Decode checked codes, (codebooks, frames) int32."""

    @abstractmethod
    def _finish(self) -> np.ndarray:
        """Decode the frames that are still buffered."""

    def _check_open(self) -> None:
        if self._finished:
            raise InputError("this stream is finished; begin a new one")


class Codec(CodecCompat, Network):
    """Runs the codec's decoder."""

    @abstractmethod
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Turn (codebooks, frames) codes into (samples,) float32."""

    @abstractmethod
    def stream(self) -> CodecStream:
        """Start a clip whose codes arrive in pieces; several streams may be open at once."""
