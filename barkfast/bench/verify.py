"""Is fast still right? Every engine and dtype of this machine against the float32 torch engine, on real sentences."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from barkfast.bench.check import CODEC_LIMITS, FINE_SHARES, LOGITS_LIMITS
from barkfast.bench.compare import count_equal, kl, log_mel_distance, pooled_rms_ratio
from barkfast.bench.comparison import (
    PROMPTS,
    Comparison,
    Configuration,
    Example,
    answer,
    choose_prompts,
    find_configurations,
    judge_of,
    read_passages,
    require_room,
    set_exams,
)
from barkfast.bench.machine import describe_machine
from barkfast.bench.parity import compare_reference
from barkfast.bench.teacher_forced import build_network, count_alone, count_likeliest
from barkfast.bench.workload import is_random
from barkfast.errors import BarkfastError, EngineError
from barkfast.runtime import select
from barkfast.weights import Checkpoint, open_model

# What a row may say. "same": every token is, or nobody can hear a difference. "close": not every token, but the logits
# are as near as rounding leaves them. The next two count as wrong, the last as nothing.
SAME, CLOSE, WRONG, FAILED, NOT_RUN = "same", "close", "WRONG", "failed", "not run"
# Of the same codes' sound, in dB: what no ear notices, and what no rounding excuses.
SAME_DB, LIMIT_DB = 0.1, 1.0

Say = Callable[[str], None]
Row = dict[str, Any]


def run_verify(
    model: str | None = None,
    device: str = "auto",
    *,
    small: bool = False,
    engines: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    languages: int = len(PROMPTS),
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Compare, and return what was found, ready for JSON.

    All are led along the tokens that the judge, the torch engine in float32, chooses greedily, so that at every step
    all see the same. If `bark` is installed, the tokens that it draws are compared with the judge's too.

    Args:
        model, device, small: as of `Bark`.
        engines, dtypes: None for all there are.
        languages: the first so many of the sentences.
        say: gets a line whenever something was found.
    Returns "rows", one per engine, dtype and stage, each with its "verdict"; see `wrong_rows` for what they amount to.
    Errors: InputError for unknown names, or too little memory; those of opening the model.
    """
    prompts = choose_prompts(languages)
    device = select.resolve_device(device)
    candidates = find_configurations(device, engines, dtypes)
    checkpoint = open_model(model, small=small or None)
    require_room(checkpoint, device)
    examples = read_passages(checkpoint, prompts)
    say(f"{checkpoint.name}: {len(examples)} sentences through the judge, torch float32 on {device}")
    comparisons = set_exams(checkpoint, examples, judge_of(device))
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        say(describe_row(row))

    for candidate in candidates:
        for row in _examine(candidate, checkpoint, comparisons):
            add(row)
    if engines is None:
        for row in compare_reference(checkpoint, examples):
            add(_judge_reference(row))
    return {
        "schema": 1,
        "kind": "verify",
        "environment": describe_machine(device),
        "model": checkpoint.name,
        "random_weights": is_random(checkpoint),
        "device": device,
        "languages": [prompt.code for prompt in prompts],
        "voices": {example.prompt.code: example.voice_name for example in examples},
        "rows": rows,
        "notes": _notes(checkpoint, examples),
    }


def wrong_rows(result: dict[str, Any]) -> list[Row]:
    """The rows that must not be."""
    return [row for row in result["rows"] if row["verdict"] in (WRONG, FAILED)]


def is_right(result: dict[str, Any]) -> bool:
    """Whether something was compared, and nothing was wrong."""
    return not wrong_rows(result) and any(row["verdict"] in (SAME, CLOSE) for row in result["rows"])


def describe_row(row: Row) -> str:
    """One line."""
    what = " ".join(filter(None, (row["engine"], row["dtype"], row["stage"])))
    figures = [f"{row['equal']} of {row['tokens']} tokens equal"] if row.get("tokens") else []
    figures += [f"rms ratio {row['rms_ratio']:.2g}"] if row.get("rms_ratio") is not None else []
    figures += [f"log-mel {row['log_mel_db']:.2g} dB"] if row.get("log_mel_db") is not None else []
    return f"{what}: {row['verdict']}" + (f": {', '.join(filter(None, [*figures, row['reason']]))}")


def _row(candidate: Configuration, stage: str, verdict: str, reason: str = "", **figures: Any) -> Row:
    known = {"engine": candidate.engine, "dtype": candidate.dtype, "device": candidate.device}
    return known | {"stage": stage, "verdict": verdict, "reason": " ".join(reason.split())} | figures


def _examine(candidate: Configuration, checkpoint: Checkpoint, comparisons: Sequence[Comparison]) -> Iterator[Row]:
    """A row per stage; one row for an engine that is not there."""
    if candidate.reason:
        yield _row(candidate, "", NOT_RUN, candidate.reason)
        return
    own: list[np.ndarray] = []
    for comparison in comparisons:
        yield _examine_stage(candidate, checkpoint, comparison, own)


def _examine_stage(
    candidate: Configuration, checkpoint: Checkpoint, comparison: Comparison, own: list[np.ndarray]
) -> Row:
    """A stage's row. The fine stage adds to `own` the windows that the engine fills by itself."""
    try:
        network = build_network(checkpoint, comparison.stage, candidate.place)
    except BarkfastError as error:
        return _row(candidate, comparison.stage, NOT_RUN, str(error))
    try:
        if comparison.stage == "codec":
            return _judge_sound(candidate, comparison, network, own, checkpoint.layout.sample_rate)
        return _judge_logits(candidate, comparison, network, own)
    except EngineError as error:
        return _row(candidate, comparison.stage, WRONG, str(error))
    except Exception as error:
        # Whatever a kernel, its compiler or a driver raises: a finding, and no reason to stop looking.
        return _row(candidate, comparison.stage, FAILED, f"{type(error).__name__}: {error}")


def _judge_logits(candidate: Configuration, comparison: Comparison, network: Any, own: list[np.ndarray]) -> Row:
    expected, actual = comparison.answer, answer(network, comparison)
    equal, total = count_equal(expected.tokens, actual.tokens), len(expected.tokens)
    ratio, limit = pooled_rms_ratio(expected.logits, actual.logits), LOGITS_LIMITS[candidate.engine][candidate.dtype]
    if comparison.stage == "fine":
        own += [network.refine(job) for job in comparison.jobs]
        share, alone = FINE_SHARES[candidate.engine], count_likeliest(network, comparison.jobs[0], own[0])
    else:
        path = comparison.paths[0]
        share, alone = 1.0, count_alone(network, comparison.jobs[0], path, actual.tokens[: len(path)])
    # What only sums in another order may not choose other tokens.
    needed = share if candidate.dtype == "float32" else 0.0
    wrong = not ratio < limit or equal < needed * total or alone[0] < share * alone[1]
    reason = "" if alone[0] >= share * alone[1] else "left to itself it chooses otherwise than step by step"
    verdict = WRONG if wrong else SAME if equal == total else CLOSE
    divergence = kl(expected.logits, actual.logits)
    figures: Row = {"tokens": total, "equal": equal, "rms_ratio": ratio, "limit": limit, "kl_nats": divergence}
    return _row(candidate, comparison.stage, verdict, reason, **figures)


def _judge_sound(
    candidate: Configuration, comparison: Comparison, codec: Any, own: Sequence[np.ndarray], sample_rate: int
) -> Row:
    """What the codec makes of the judge's codes; and, for information, of those the engine filled in itself."""
    sounds = [codec.decode(codes) for codes in comparison.paths]
    if not all(np.isfinite(sound).all() for sound in sounds):
        raise EngineError("the samples are not finite")
    ratio, limit = pooled_rms_ratio(comparison.sounds, sounds), CODEC_LIMITS[candidate.engine]

    def distance(actual: Sequence[np.ndarray]) -> float:
        pairs = zip(comparison.sounds, actual, strict=True)
        return float(np.mean([log_mel_distance(wanted, found, sample_rate) for wanted, found in pairs]))

    decibels = distance(sounds)
    own_decibels = distance([codec.decode(np.ascontiguousarray(w.T)) for w in own]) if own else None
    wrong = not (ratio < limit and decibels < LIMIT_DB)
    verdict = WRONG if wrong else SAME if decibels <= SAME_DB else CLOSE
    figures: Row = {"rms_ratio": ratio, "limit": limit, "log_mel_db": decibels, "limit_db": LIMIT_DB}
    return _row(candidate, comparison.stage, verdict, "", **figures, own_log_mel_db=own_decibels)


def _judge_reference(row: Row) -> Row:
    """The verdict of a row of `compare_reference`: the same weights and random numbers must give the same tokens."""
    if "tokens" not in row:
        return row | {"verdict": NOT_RUN}
    return row | {"verdict": SAME if row["equal"] == row["tokens"] else WRONG}


def _notes(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[str]:
    notes = []
    if is_random(checkpoint):
        notes.append(
            "These weights are random. The comparison shows that the engines compute the same network, and how far "
            "rounding moves its logits. It does not show how speech sounds, nor how often rounding changes a token of "
            "a trained model: run it with suno/bark for that."
        )
    without = [example.prompt.code for example in examples if example.voice is None]
    if without:
        notes.append(f"No voice was found for {', '.join(without)}: those sentences were compared without.")
    return notes
