"""The lines of a step's profile: what each part of it took, what that must read, and what is left to be won."""

from collections.abc import Sequence
from typing import Any

from barkfast.bench.roofline import decoder_step_bytes
from barkfast.bench.steps import candidates, step_job
from barkfast.config import Layout
from barkfast.errors import InputError
from barkfast.jobs import Job
from barkfast.runtime.decoder import Decoder

# Steps of a job, half of them before the context that is asked for and half behind it.
STEPS, LEAST_STEPS = 42, 12
# What of a step is in none of its parts.
REST = "all else"
NOTES = {
    "cpu": "each part is timed alone, with weights from memory; all else is norms, rounding and waiting",
    "cuda": "kernels are timed one after the other; in the step itself each may begin while the one before it ends",
    "torch": "operators have the shares of the step that they have under torch's profiler",
}
Part = dict[str, Any]
Profile = dict[str, Any]


def usual_context(decoder: Decoder, layout: Layout, stage: str) -> int:
    """Positions in the middle of a long sentence, or of a coarse window with all of its history."""
    if stage == "semantic":
        usual = 2 * layout.semantic.n_slots
    else:
        usual = layout.coarse.n_slots + 1 + layout.coarse.max_history + layout.coarse.sliding_window // 2
    return min(usual, decoder.config.block_size - LEAST_STEPS)


def centred_job(
    decoder: Decoder, layout: Layout, stage: str, context: int, *, quick: bool = False, seed: int = 0
) -> Job:
    """A job whose steps attend to `context` positions on average; nothing ends it early."""
    size = decoder.config.block_size
    if not LEAST_STEPS // 2 < context <= size - LEAST_STEPS // 2:
        raise InputError(
            f"context is {context}; expected {LEAST_STEPS // 2 + 1} to {size - LEAST_STEPS // 2} positions, "
            f"for the {stage} network has {size}"
        )
    half = min((LEAST_STEPS if quick else STEPS) // 2, context - 1, size - context)
    return step_job(stage, layout, context - half, 2 * half, seed, may_stop=False)


def make_part(name: str, count: float, us: float, n_bytes: int | None = None, floor_us: float | None = None) -> Part:
    """A line: what it is, how often a step has it, and the microseconds and bytes of all of these together."""
    return {
        "part": name,
        "count": count,
        "us": round(us, 2),
        "bytes": n_bytes,
        "floor_us": None if floor_us is None else round(floor_us, 2),
        "gb_per_s": round(n_bytes / us / 1e3, 2) if n_bytes and us > 0 else None,
    }


def to_be_won(part: Part) -> float:
    """Microseconds beyond the floor; all of them where no bytes are known."""
    return part["us"] - (part["floor_us"] or 0.0)


def make_profile(
    decoder: Decoder,
    stage: str,
    engine: str,
    jobs: Sequence[Job],
    context: float,
    whole: float,
    parts: list[Part],
    rate: float,
) -> Profile:
    """The parts in order, with their shares and what is not among them, and the floor of the whole.

    Args:
        whole: microseconds of a step.
        rate: of reading, GB/s.
    """
    rest = whole - sum(part["us"] for part in parts)
    # Parts alone may take longer than together: caches keep small weights, kernels overlap.
    if rest > 0:
        parts = [*parts, make_part(REST, 1, rest)]
    ordered = sorted(parts, key=to_be_won, reverse=True)
    total = decoder_step_bytes(decoder, context=context, candidates=candidates(jobs[0]), batch=len(jobs)).total
    return {
        "stage": stage,
        "dtype": decoder.weight_dtype,
        "engine": engine,
        "batch": len(jobs),
        "context": context,
        "us": round(whole, 2),
        "bytes": total,
        "floor_us": round(total / rate / 1e3, 2),
        "read_gb_per_s": round(rate, 2),
        "parts": [part | {"share": round(part["us"] / whole, 4)} for part in ordered],
        "note": NOTES[engine],
    }
