"""Is it right? A network beside the torch engine's in float32: the same jobs, and the same tokens before each one.

`ask_reference` and `compare` do this for one stage; `check` does it with synthetic jobs before anything is timed, and
`barkfast verify` with real sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from barkfast.bench import teacher_forced as forced
from barkfast.bench.compare import count_equal, pooled_rms_ratio
from barkfast.bench.workload import NO_VOICE, STAGES, Workload, full_voice
from barkfast.config import Layout
from barkfast.errors import EngineError
from barkfast.jobs import Job
from barkfast.runtime.decoder import Decoder
from barkfast.runtime.select import Placement
from barkfast.weights import Checkpoint

# Root mean square of the logits' error over that of float32's logits, by engine and dtype. The engines' own tests are
# stricter: beyond these limits something must be wrong, not rounded.
LOGITS_LIMITS = {
    "torch": {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02},
    "cpu": {"float32": 1e-4, "bfloat16": 0.03, "int8": 0.08, "int4": 0.4},
    "cuda": {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02, "int8": 0.10},
}
# Thousands of codes are drawn from 1024 logits each: of two nearly equal ones another rounding may take the other.
FINE_SHARES = {"torch": 0.999, "cpu": 0.999, "cuda": 0.99}
# The codec's samples; the cuda engine stores its numbers in float16, unless float32 is asked for.
CODEC_LIMITS = {"torch": 1e-3, "cpu": 1e-3, "cuda": 0.02}
# The check of a stage whose network raised an error.
FAILED = {"semantic": "semantic steps", "coarse": "coarse steps", "fine": "fine window", "codec": "codec"}
# What a network chooses without teacher forcing, and what it must agree with where float32's tokens are not needed.
OWN_CHOICES = {
    "decoder": ("tokens", "by itself against step by step"),
    "fine": ("codes", "the first codebook, against its own logits"),
}
# Jobs in a batch, and their steps, to see that the batch changes nothing.
TOGETHER, STEPS_TOGETHER = 2, 4


@dataclass(frozen=True)
class Reference:
    """What the torch engine in float32 computes for one stage.

    Args:
        stage: semantic, coarse, fine or codec.
        jobs: Job or FineJob; of the codec, codes (codebooks, frames).
        paths: its tokens (positions,), or windows (frames, codebooks) of the fine stage, by job; none of the codec.
        answer: its logits and tokens at all positions; of the codec, the samples (n,) of each job in place of logits.
    """

    stage: str
    jobs: Sequence[Any]
    paths: Sequence[np.ndarray]
    answer: forced.ForcedPass


@dataclass(frozen=True)
class StageRow:
    """One stage of a network beside the reference.

    Args:
        ratio, limit: rms of the difference of the logits, or samples, over that of the reference's; below the limit.
        tokens, equal: positions, and those where both choose the same token; none of the codec.
        share: of the tokens, at least so many must be right.
        needed: whether the tokens must be the reference's, as in float32.
        by_itself: how many tokens of the first job, without teacher forcing, are those that the network chooses step
            by step, and of how many.
        free: the same against the reference's tokens if they are needed.
        answer: what the network computes; `windows` what it fills in by itself, (frames, codebooks) each.
    """

    ratio: float
    limit: float
    answer: forced.ForcedPass
    tokens: int = 0
    equal: int = 0
    share: float = 1.0
    needed: bool = False
    by_itself: tuple[int, int] = (0, 0)
    free: tuple[int, int] = (0, 0)
    windows: Sequence[np.ndarray] = field(default_factory=list)

    @property
    def runs_as_it_steps(self) -> bool:
        """Whether a run without teacher forcing chooses what single steps choose."""
        return self.by_itself[0] >= self.share * self.by_itself[1]

    @property
    def right(self) -> bool:
        """The verdict."""
        same = not self.needed or self.equal >= self.share * self.tokens
        return self.ratio < self.limit and same and self.runs_as_it_steps


def reference_placement(device: str) -> Placement:
    """The torch engine in float32, which the others are compared with."""
    return Placement("torch", device, device, "float32")


def ask_reference(checkpoint: Checkpoint, stage: str, jobs: Sequence[Any], device: str) -> Reference:
    """Load the reference network of a stage, and let it choose its tokens for greedy jobs."""
    network = forced.build_network(checkpoint, stage, reference_placement(device))
    if stage in ("semantic", "coarse"):
        passes = [forced.teacher_force(network, job) for job in jobs]
        return Reference(stage, jobs, [one.tokens for one in passes], forced.ForcedPass.joined(passes))
    paths = [network.refine(job) for job in jobs] if stage == "fine" else []
    return Reference(stage, jobs, paths, ask(network, stage, jobs, paths))


def ask(network: Any, stage: str, jobs: Sequence[Any], paths: Sequence[np.ndarray]) -> forced.ForcedPass:
    """What a network computes along given tokens, see `Reference`. Raises: EngineError if it is not finite."""
    if stage == "codec":
        samples = [network.decode(codes) for codes in jobs]
        if not all(np.isfinite(one).all() for one in samples):
            raise EngineError("the samples are not finite")
        return forced.ForcedPass(samples, np.zeros(0, np.int32))
    force: Any = forced.teacher_force_fine if stage == "fine" else forced.teacher_force
    return forced.ForcedPass.joined([force(network, job, path) for job, path in zip(jobs, paths, strict=True)])


def compare(reference: Reference, network: Any, engine: str, dtype: str) -> StageRow:
    """Compare a network with the reference. Raises: EngineError for logits or samples that are not finite."""
    stage, jobs, paths = reference.stage, reference.jobs, reference.paths
    answer = ask(network, stage, jobs, paths)
    ratio = pooled_rms_ratio(reference.answer.logits, answer.logits)
    if stage == "codec":
        return StageRow(ratio, CODEC_LIMITS[engine], answer)
    job, path, needed = jobs[0], paths[0], dtype == "float32"
    windows, share = [], 1.0
    if stage == "fine":
        windows, share = [network.refine(one) for one in jobs], FINE_SHARES[engine]
        free = by_itself = forced.count_likeliest(network, job, windows[0])
        if needed:
            path = forced.filled(job, path)
            free = count_equal(path, forced.filled(job, windows[0])), len(path)
    else:
        free = by_itself = forced.count_alone(network, job, path, answer.tokens[: len(path)])
        if needed:
            tokens = forced.run_greedy(network, job)
            free = count_equal(path, tokens), max(len(path), len(tokens))
    equal, limit = count_equal(reference.answer.tokens, answer.tokens), LOGITS_LIMITS[engine][dtype]
    return StageRow(ratio, limit, answer, len(answer.tokens), equal, share, needed, by_itself, free, windows)


@dataclass(frozen=True)
class Check:
    """One line of the check before timing.

    Args:
        value: None where the network raised an error; the note has its message.
        limit: at most this, or of a share at least this.
        unit: "share" or "rms ratio".
    """

    name: str
    ok: bool
    value: float | None
    limit: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Sizes:
    """How much is compared: steps of the semantic and coarse stage, frames of the fine stage and of the codec."""

    steps: int
    frames: int
    codec_frames: int


QUICK, THOROUGH = Sizes(20, 24, 75), Sizes(60, 256, 300)


def check(workload: Workload, *, quick: bool = True) -> list[Check]:
    """Compare the workload's model, engine and dtype with the torch engine in float32 on the same device.

    Takes a few seconds for the small model on two cores, and holds one network of the model at a time.

    Args:
        quick: a few dozen steps and a short window; otherwise as many as a stage's first window has.

    Raises: those of opening the model; EngineError if the engine cannot run one of its networks.
    """
    workload, sizes = workload.resolve(), QUICK if quick else THOROUGH
    checkpoint = workload.open()
    # Both networks of a stage are made of the weights that were read once; random weights are not made twice.
    checkpoint = replace(checkpoint, read_stage=lru_cache(maxsize=1)(checkpoint.read_stage))
    voice = None if workload.voice == NO_VOICE else full_voice(checkpoint.layout)
    checks: list[Check] = []
    for stage in STAGES:
        checks += _check_stage(stage, _make_jobs(stage, checkpoint.layout, voice, sizes), workload, checkpoint)
    return checks


def _make_jobs(stage: str, layout: Layout, voice: forced.Voice | None, sizes: Sizes) -> list[Any]:
    """Jobs of random numbers; of the decoders several, with prompts of different lengths."""
    random = np.random.default_rng(0)
    if stage == "codec":
        return [random.integers(0, layout.codebook_size, (layout.fine.n_codebooks, sizes.codec_frames), np.int32)]
    if stage == "fine":
        coarse = random.integers(0, layout.codebook_size, (layout.coarse.n_codebooks, sizes.frames))
        return [forced.greedy_fine(layout, coarse, voice, sizes.frames)]
    if stage == "semantic":
        n_ids = layout.semantic.text_pad_token - layout.semantic.text_offset
        texts = [random.integers(0, n_ids, 20 + 3 * i) for i in range(TOGETHER)]
        return [forced.greedy_semantic(layout, text, voice, sizes.steps) for text in texts]
    # Enough of them for a whole window of coarse tokens.
    lengths = [layout.coarse.sliding_window + 7 * i for i in range(TOGETHER)]
    return [
        forced.greedy_coarse(layout, random.integers(0, layout.semantic.vocab_size, n), voice, sizes.steps)
        for n in lengths
    ]


def _check_stage(stage: str, jobs: list[Any], workload: Workload, checkpoint: Checkpoint) -> list[Check]:
    """The first job beside the reference, and all in a batch beside each of them by itself."""
    engine, device = workload.engine, workload.device
    reference = ask_reference(checkpoint, stage, jobs[:1], device)
    network = forced.build_network(checkpoint, stage, Placement(engine, device, device, workload.dtype, len(jobs)))
    checks: list[Check] = []
    try:
        row = compare(reference, network, engine, workload.dtype)
        if stage == "codec":
            return [_at_most(stage, row.ratio, row.limit)]
        name, note = OWN_CHOICES["fine" if stage == "fine" else "decoder"]
        if row.needed:
            note = f"{row.free[0]} of {row.free[1]} equal"
        share = row.free[0] / row.free[1]
        checks.append(Check(f"{stage} {name}", share >= row.share, share, row.share, "share", note))
        checks.append(_at_most(f"{stage} logits", row.ratio, row.limit, f"{row.equal} of {row.tokens} tokens equal"))
        if len(jobs) > 1 and engine != "torch":
            checks.append(_check_together(f"{stage}, {len(jobs)} at a time", network, jobs, row.limit))
    except EngineError as error:
        limit, unit = (CODEC_LIMITS[engine], "rms ratio") if stage == "codec" else (None, "")
        checks.append(Check(FAILED[stage], False, None, limit, unit, " ".join(str(error).split())))
    return checks


def _at_most(name: str, value: float, limit: float, note: str = "") -> Check:
    return Check(name, value < limit, value, limit, "rms ratio", note)


def _check_together(name: str, decoder: Decoder, jobs: list[Job], limit: float) -> Check:
    """The logits of jobs in a batch against those of each by itself, for as long as they draw the same."""
    jobs = [replace(job, steps=STEPS_TOGETHER, stop=None) for job in jobs]
    passes = [forced.teacher_force(decoder, job) for job in jobs]
    same = {decoder.admit(job): own for job, own in zip(jobs, passes, strict=True)}
    slots, single, together = list(same), [], []
    try:
        for n in range(STEPS_TOGETHER):
            for step in decoder.step():
                if step.error is not None:
                    raise step.error
                if step.slot not in same:
                    continue
                own = same[step.slot]
                # In the first step an engine may have drawn one after the other, as it read the prompts.
                if n:
                    single.append(own.logits[n])
                    together.append(decoder.logits(step.slot))
                if step.token != own.tokens[n]:
                    del same[step.slot]
    finally:
        for slot in slots:
            decoder.release(slot)
    if not single:
        return Check(name, False, None, limit, "rms ratio", "the first tokens differ from those of each alone")
    return _at_most(name, pooled_rms_ratio(single, together), limit, f"{len(single)} steps, against each alone")
