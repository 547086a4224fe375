"""Is it right? What is to be timed, on its own weights, against the float32 torch engine on the same device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from barkfast.bench.compare import count_equal, pooled_rms_ratio, rms_ratio
from barkfast.bench.teacher_forced import (
    ForcedPass,
    Voice,
    build_network,
    count_alone,
    count_likeliest,
    filled,
    greedy_coarse,
    greedy_fine,
    greedy_semantic,
    run_greedy,
    teacher_force,
    teacher_force_fine,
)
from barkfast.bench.workload import NO_VOICE, Workload, full_voice
from barkfast.config import Layout
from barkfast.errors import EngineError
from barkfast.jobs import FineJob, Job
from barkfast.runtime.decoder import Decoder, Refiner
from barkfast.runtime.select import Placement
from barkfast.weights import Checkpoint

# Root mean square of the logits' error over that of float32's logits, by engine and dtype. What the engines are built
# for is stricter: beyond these limits something must be wrong, rather than rounded.
LOGITS_LIMITS = {
    "torch": {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02},
    "cpu": {"float32": 1e-4, "bfloat16": 0.03, "int8": 0.08, "int4": 0.4},
    "cuda": {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02, "int8": 0.10},
}
# Thousands of codes are drawn from 1024 logits each: of two nearly equal ones another rounding may take the other.
FINE_SHARES = {"torch": 0.999, "cpu": 0.999, "cuda": 0.99}
# The codec's samples; the cuda engine stores its numbers in float16, unless float32 is asked for.
CODEC_LIMITS = {"torch": 1e-3, "cpu": 1e-3, "cuda": 0.02}


@dataclass(frozen=True)
class Check:
    """One comparison.

    Args:
        ok: whether the value keeps the limit.
        value: None where there is none, because what was checked failed; the note says how.
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
# Sequences at a time, and their steps, to see that company changes nothing.
TOGETHER, STEPS_TOGETHER = 2, 4


def gate_ok(checks: Sequence[Check]) -> bool:
    """Whether there was something to check and all of it is right."""
    return bool(checks) and all(check.ok for check in checks)


def check(workload: Workload, *, quick: bool = True) -> list[Check]:
    """Compare what the workload's model, engine and dtype compute with what float32 on the torch engine does.

    Greedy tokens must be the same in float32; other dtypes are judged by their logits. Takes a few seconds for the
    small model on two cores, and holds one network of the model at a time.

    Args:
        quick: a few dozen steps and a short window; otherwise as many as a stage's first window has.
    Errors: those of opening the model; EngineError if the engine cannot run one of its networks.
    """
    workload, sizes = workload.resolve(), QUICK if quick else THOROUGH
    checkpoint = workload.open()
    # The judge and the candidate share what was read; random weights are not made twice.
    checkpoint = replace(checkpoint, read_stage=lru_cache(maxsize=1)(checkpoint.read_stage))
    voice = None if workload.voice == NO_VOICE else full_voice(checkpoint.layout)
    checks: list[Check] = []
    for stage in ("semantic", "coarse"):
        jobs = [_make_job(stage, checkpoint.layout, voice, sizes.steps, seed) for seed in range(TOGETHER)]
        checks += _check_decoder(stage, jobs, workload, checkpoint)
    checks += _check_fine(_make_window(checkpoint.layout, voice, sizes.frames), workload, checkpoint)
    return checks + _check_codec(sizes.codec_frames, workload, checkpoint)


def _places(workload: Workload, n_slots: int = 1) -> tuple[Placement, Placement]:
    """The judge's and the candidate's."""
    judge = Placement("torch", workload.device, workload.device, "float32")
    return judge, Placement(workload.engine, workload.device, workload.device, workload.dtype, n_slots)


def _make_job(stage: str, layout: Layout, voice: Voice | None, steps: int, seed: int) -> Job:
    rng = np.random.default_rng(seed)
    if stage == "semantic":
        n_ids = layout.semantic.text_pad_token - layout.semantic.text_offset
        return greedy_semantic(layout, rng.integers(0, n_ids, 20 + 3 * seed), voice, steps)
    # Enough of them for a whole window of coarse tokens.
    semantic = rng.integers(0, layout.semantic.vocab_size, layout.coarse.sliding_window + 7 * seed)
    return greedy_coarse(layout, semantic, voice, steps)


def _make_window(layout: Layout, voice: Voice | None, frames: int) -> FineJob:
    shape = (layout.coarse.n_codebooks, frames)
    coarse = np.random.default_rng(0).integers(0, layout.codebook_size, shape)
    return greedy_fine(layout, coarse, voice, frames)


def _at_least(name: str, equal: int, total: int, limit: float, note: str) -> Check:
    share = equal / total
    return Check(name, share >= limit, share, limit, "share", note or f"{equal} of {total} equal")


def _at_most(name: str, value: float, limit: float, note: str = "") -> Check:
    return Check(name, value < limit, value, limit, "rms ratio", note)


@contextmanager
def _failures(name: str, checks: list[Check]) -> Iterator[None]:
    """Make a check that failed of what the engine raises when its logits are not finite."""
    try:
        yield
    except EngineError as error:
        checks.append(Check(name, False, None, None, "", " ".join(str(error).split())))


def _check_decoder(stage: str, jobs: list[Job], workload: Workload, checkpoint: Checkpoint) -> list[Check]:
    """The first job against the judge, and all of them together against each alone."""
    judge_place, place = _places(workload, TOGETHER)
    judge = build_network(checkpoint, stage, judge_place)
    path = teacher_force(judge, jobs[0])
    del judge
    decoder = build_network(checkpoint, stage, place)
    checks: list[Check] = []
    with _failures(f"{stage} steps", checks):
        own = teacher_force(decoder, jobs[0], path.tokens)
        limit = LOGITS_LIMITS[workload.engine][workload.dtype]
        checks.append(_check_tokens(stage, decoder, jobs[0], path, own, workload))
        note = f"{count_equal(path.tokens, own.tokens)} of {len(path.tokens)} tokens equal"
        checks.append(_at_most(f"{stage} logits", pooled_rms_ratio(path.logits, own.logits), limit, note))
        if workload.engine != "torch":
            checks.append(_check_together(f"{stage}, {TOGETHER} at a time", decoder, jobs, limit))
    return checks


def _check_tokens(
    stage: str, decoder: Decoder, job: Job, path: ForcedPass, own: ForcedPass, workload: Workload
) -> Check:
    """A job's own greedy tokens against float32's; of other dtypes, against those of the same engine step by step."""
    if workload.dtype == "float32":
        tokens = run_greedy(decoder, job)
        equal, total = count_equal(path.tokens, tokens), max(len(path.tokens), len(tokens))
        return _at_least(f"{stage} tokens", equal, total, 1.0, "")
    equal, total = count_alone(decoder, job, path.tokens, own.tokens)
    return _at_least(f"{stage} tokens", equal, total, 1.0, "by itself against step by step")


def _check_together(name: str, decoder: Decoder, jobs: list[Job], limit: float) -> Check:
    """The logits of jobs that run together against those they have alone, for as long as they draw the same."""
    jobs = [replace(job, steps=STEPS_TOGETHER, stop=None) for job in jobs]
    passes = [teacher_force(decoder, job) for job in jobs]
    same = {decoder.admit(job): own for job, own in zip(jobs, passes, strict=True)}
    slots, alone, together = list(same), [], []
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
                    alone.append(own.logits[n])
                    together.append(decoder.logits(step.slot))
                if step.token != own.tokens[n]:
                    del same[step.slot]
    finally:
        for slot in slots:
            decoder.release(slot)
    if not alone:
        return Check(name, False, None, limit, "rms ratio", "the first tokens differ from those of each alone")
    return _at_most(name, pooled_rms_ratio(alone, together), limit, f"{len(alone)} steps, against each alone")


def _check_fine(job: FineJob, workload: Workload, checkpoint: Checkpoint) -> list[Check]:
    judge_place, place = _places(workload)
    judge: Refiner = build_network(checkpoint, "fine", judge_place)
    # Float32 must choose the same codes; to ask others for their logits any codes will do.
    window = judge.refine(job) if workload.dtype == "float32" else _fill_at_random(job)
    expected = teacher_force_fine(judge, job, window)
    del judge
    refiner: Refiner = build_network(checkpoint, "fine", place)
    checks: list[Check] = []
    with _failures("fine window", checks):
        own = teacher_force_fine(refiner, job, window)
        ratio = pooled_rms_ratio(expected.logits, own.logits)
        checks.append(_at_most("fine logits", ratio, LOGITS_LIMITS[workload.engine][workload.dtype]))
        codes = refiner.refine(job)
        if workload.dtype == "float32":
            wanted, note = filled(job, window), ""
            equal, total = count_equal(wanted, filled(job, codes)), len(wanted)
        else:
            equal, total = count_likeliest(refiner, job, codes)
            note = "the first codebook, against its own logits"
        checks.append(_at_least("fine codes", equal, total, FINE_SHARES[workload.engine], note))
    return checks


def _fill_at_random(job: FineJob) -> np.ndarray:
    window, fill = job.window.copy(), (slice(job.first_frame, None), slice(job.first_codebook, None))
    window[fill] = np.random.default_rng(1).integers(0, job.codebook_size, window[fill].shape)
    return window


def _check_codec(frames: int, workload: Workload, checkpoint: Checkpoint) -> list[Check]:
    layout = checkpoint.layout
    shape = (layout.fine.n_codebooks, frames)
    codes = np.random.default_rng(0).integers(0, layout.codebook_size, shape).astype(np.int32)
    judge_place, place = _places(workload)
    expected, actual = (build_network(checkpoint, "codec", p).decode(codes) for p in (judge_place, place))
    if not np.isfinite(actual).all():
        return [Check("codec", False, None, CODEC_LIMITS[workload.engine], "rms ratio", "the samples are not finite")]
    return [_at_most("codec", rms_ratio(expected, actual), CODEC_LIMITS[workload.engine])]
