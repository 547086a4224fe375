"""Teacher forcing: a network continues from tokens that another one chose, so that both see the same at every step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from barkfast.bench.compare import count_equal
from barkfast.config import FineConfig, Layout, Sampling
from barkfast.errors import EngineError
from barkfast.jobs import FineJob, Job
from barkfast.runtime import select
from barkfast.runtime.decoder import Decoder, Refiner
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.semantic import semantic_job
from barkfast.weights import Checkpoint

GREEDY = Sampling(0)
COMPONENTS = {"semantic": "text", "coarse": "coarse", "fine": "fine", "codec": "codec"}
Voice = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ForcedPass:
    """What a network computes at each position.

    Args:
        logits: of each position, (n,) float32.
        tokens: (positions,) int32, the network's own choice at each, whatever token comes next.
    """

    logits: list[np.ndarray]
    tokens: np.ndarray

    @classmethod
    def joined(cls, passes: "Sequence[ForcedPass]") -> "ForcedPass":
        """Several as one."""
        return cls([row for one in passes for row in one.logits], np.concatenate([one.tokens for one in passes]))


def build_network(checkpoint: Checkpoint, stage: str, placement: select.Placement) -> Any:
    """The decoder, refiner or codec of a stage. Raises: EngineError if the engine cannot run it."""
    if stage == "codec":
        codec = checkpoint.codec()
        if placement.device == "mps":
            # Its LSTM does not run there.
            placement = replace(placement, device="cpu", storage_device="cpu")
        return select.build_codec(codec.config, codec.tensors, placement)
    weights = checkpoint.stage(COMPONENTS[stage])
    if isinstance(weights.config, FineConfig):
        return select.build_refiner(weights.config, weights.tensors, placement, weights.content)
    return select.build_decoder(stage, weights.config, weights.tensors, placement, weights.content)


def greedy_semantic(layout: Layout, text_ids: np.ndarray, voice: Voice | None, steps: int) -> Job:
    """The semantic stage's job for a text, greedy, of at most `steps` tokens."""
    history = None if voice is None else voice["semantic_prompt"]
    job = semantic_job(text_ids, layout, GREEDY, history=history)
    return replace(job, steps=min(steps, job.steps))


def greedy_coarse(layout: Layout, semantic: np.ndarray, voice: Voice | None, steps: int) -> Job:
    """The coarse stage's first job for semantic tokens (n,), greedy, of at most `steps` tokens."""
    history = None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"])
    job = CoarseWindows(semantic, layout, GREEDY, history=history).next_job()
    assert job is not None
    return replace(job, steps=min(steps, job.steps))


def greedy_fine(layout: Layout, coarse: np.ndarray, voice: Voice | None, history: int) -> FineJob:
    """A window of the last `history` frames of a voice, and of coarse codes (n, frames) to be filled up."""
    past = np.zeros((layout.fine.n_codebooks, 0)) if voice is None else voice["fine_prompt"][:, -history:]
    n_past, n_given = past.shape[1], len(coarse)
    window = np.full((n_past + coarse.shape[1], layout.fine.n_codebooks), layout.codebook_size, np.int32)
    window[:n_past] = past.T
    window[n_past:, :n_given] = coarse.T
    return FineJob(window, n_past, n_given, layout.codebook_size, GREEDY)


def teacher_force(decoder: Decoder, job: Job, path: np.ndarray | None = None) -> ForcedPass:
    """Run a greedy job with given tokens, or with the network's own choices.

    Args:
        path: (positions,) the given tokens, the stop token at most as the last; None for the network's own.

    Raises: EngineError for logits that are not finite.
    """
    logits: list[np.ndarray] = []
    tokens: list[int] = []
    job = job if path is None else replace(job, steps=len(path))
    while len(tokens) < job.steps:
        slot = decoder.admit(_rest_of(job, path[: len(tokens)]) if path is not None and tokens else job)
        try:
            done = False
            while not done:
                (step,) = decoder.step()
                if step.error is not None:
                    raise step.error
                logits.append(decoder.logits(slot))
                tokens.append(_chosen(job, step.token))
                done = step.done or (path is not None and tokens[-1] != path[len(tokens) - 1])
        finally:
            decoder.release(slot)
        if path is None:
            break
    return ForcedPass(logits, np.array(tokens, np.int32))


def run_greedy(decoder: Decoder, job: Job) -> np.ndarray:
    """The tokens of a job without teacher forcing, and the stop token if that ended it."""
    tokens = decoder.run([job])[0]
    return tokens if len(tokens) == job.steps else np.append(tokens, _chosen(job, None)).astype(np.int32)


def without_stop(job: Job, tokens: np.ndarray) -> np.ndarray:
    """The tokens that are not the stop token."""
    return tokens if job.stop is None else tokens[tokens != job.stop.token]


def _chosen(job: Job, token: int | None) -> int:
    if token is not None:
        return token
    assert job.stop is not None
    return job.stop.token


def _rest_of(job: Job, path: np.ndarray) -> Job:
    """The rest of a job, whose first tokens are `path`."""
    first = len(path) % len(job.slices)
    return replace(
        job,
        prompt=np.concatenate([job.prompt, path]).astype(np.int32),
        steps=job.steps - len(path),
        slices=job.slices[first:] + job.slices[:first],
        # A copy that no decoder knows: what a decoder retains of the job itself has its own choices.
        continues_from=replace(job),
    )


def teacher_force_fine(refiner: Refiner, job: FineJob, path: np.ndarray) -> ForcedPass:
    """The logits of each frame and codebook that a job fills, given the codebooks before it.

    Args:
        path: (frames, codebooks) the filled window.

    Raises: EngineError for logits that are not finite.
    """
    window, fill = job.window.copy(), slice(job.first_frame, None)
    passes = []
    for codebook in range(job.first_codebook, window.shape[1]):
        rows = refiner.logits(window, codebook)[fill, : job.codebook_size]
        if not np.isfinite(rows).all():
            raise EngineError(f"the fine network's logits of codebook {codebook} are not finite")
        passes.append(ForcedPass(list(rows), rows.argmax(-1).astype(np.int32)))
        window[fill, codebook] = path[fill, codebook]
    return ForcedPass.joined(passes)


def filled(job: FineJob, window: np.ndarray) -> np.ndarray:
    """The codes of a filled window, (positions,), in the order of `teacher_force_fine`."""
    return window[job.first_frame :, job.first_codebook :].T.ravel()


def count_alone(decoder: Decoder, job: Job, path: np.ndarray, own: np.ndarray) -> tuple[int, int]:
    """How many tokens of a job without teacher forcing are those the network chose step by step, and of how many.

    Counted up to its first choice that is not the given token: from there on the two have different prompts.

    Args:
        path, own: (positions,) the tokens given to `teacher_force`, and those it chose.
    """
    differ = np.flatnonzero(own != path)
    n = int(differ[0]) + 1 if len(differ) else len(own)
    tokens = run_greedy(decoder, replace(job, steps=len(path)))[:n]
    return count_equal(own[:n], tokens), n


def count_likeliest(refiner: Refiner, job: FineJob, window: np.ndarray) -> tuple[int, int]:
    """How many codes of a filled window are the likeliest by the network's own logits, and of how many.

    Of the first codebook that was filled: it depends on nothing that rounding may have changed.
    """
    rows = refiner.logits(job.window, job.first_codebook)[job.first_frame :, : job.codebook_size]
    codes = window[job.first_frame :, job.first_codebook]
    return int((rows[np.arange(len(codes)), codes] == rows.max(-1)).sum()), len(codes)
