"""`barkfast verify`: every engine and dtype of this machine beside the float32 torch engine, on real sentences."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from barkfast.bench.check import Reference, compare
from barkfast.bench.compare import kl, log_mel_distance
from barkfast.bench.comparison import (
    PROMPTS,
    Configuration,
    Example,
    choose_prompts,
    find_configurations,
    make_references,
    read_examples,
    require_memory,
)
from barkfast.bench.machine import describe_machine
from barkfast.bench.reference import compare_reference
from barkfast.bench.teacher_forced import build_network
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

    All are teacher-forced with the tokens that the reference, the torch engine in float32, chooses greedily. If `bark`
    is installed, the tokens that it draws are compared with the reference's too.

    Args:
        model, device, small: as of `Bark`.
        engines, dtypes: None for all there are.
        languages: the first so many of the sentences.
        say: gets a line whenever something was found.

    Returns "rows", one per engine, dtype and stage, each with its "verdict"; see `wrong_rows` for what they amount to.

    Raises: InputError for unknown names, or too little memory; those of opening the model.
    """
    prompts = choose_prompts(languages)
    device = select.resolve_device(device)
    configurations = find_configurations(device, engines, dtypes)
    checkpoint = open_model(model, small=small or None)
    require_memory(checkpoint, device)
    examples = read_examples(checkpoint, prompts)
    say(f"{checkpoint.name}: {len(examples)} sentences through the reference, torch float32 on {device}")
    references = make_references(checkpoint, examples, device)
    rows: list[Row] = []
    for row in _make_rows(configurations, checkpoint, references, examples if engines is None else []):
        rows.append(row)
        say(describe_row(row))
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


def _make_rows(
    configurations: Sequence[Configuration],
    checkpoint: Checkpoint,
    references: Sequence[Reference],
    examples: Sequence[Example],
) -> Iterator[Row]:
    """A row per configuration and stage, one for an engine that is not there, and `bark`'s if there are examples."""
    for one in configurations:
        head = {"engine": one.engine, "dtype": one.dtype, "device": one.device}
        if one.reason:
            yield head | {"stage": "", "verdict": NOT_RUN, "reason": " ".join(one.reason.split())}
            continue
        windows: list[np.ndarray] = []
        for reference in references:
            row = {"stage": reference.stage} | _compare_stage(one, checkpoint, reference, windows)
            yield head | row | {"reason": " ".join(row["reason"].split())}
    for row in compare_reference(checkpoint, examples) if examples else []:
        yield row | {"verdict": verdict_of(row)}


def _compare_stage(one: Configuration, checkpoint: Checkpoint, reference: Reference, windows: list[np.ndarray]) -> Row:
    """Verdict, reason and figures. The fine stage adds what it fills by itself to `windows`, the codec decodes that."""
    try:
        network = build_network(checkpoint, reference.stage, one.placement)
    except BarkfastError as error:
        return {"verdict": NOT_RUN, "reason": str(error)}
    try:
        row = compare(reference, network, one.engine, one.dtype)
        figures: Row = {"rms_ratio": row.ratio, "limit": row.limit}
        if reference.stage == "codec":
            rate, wanted = checkpoint.layout.sample_rate, reference.answer.logits
            own = [network.decode(np.ascontiguousarray(window.T)) for window in windows]
            decibels = _mean_distance(wanted, row.answer.logits, rate)
            figures |= {"log_mel_db": decibels, "limit_db": LIMIT_DB}
            figures["own_log_mel_db"] = _mean_distance(wanted, own, rate) if own else None
            right, same, reason = row.right and decibels < LIMIT_DB, decibels <= SAME_DB, ""
        else:
            windows += row.windows
            divergence = kl(reference.answer.logits, row.answer.logits)
            figures = {"tokens": row.tokens, "equal": row.equal, **figures, "kl_nats": divergence}
            right, same = row.right, row.equal == row.tokens
            reason = "" if row.runs_as_it_steps else "left to itself it chooses otherwise than step by step"
    except EngineError as error:
        return {"verdict": WRONG, "reason": str(error)}
    except Exception as error:
        # Whatever a kernel, its compiler or a driver raises: a finding, and no reason to stop looking.
        return {"verdict": FAILED, "reason": f"{type(error).__name__}: {error}"}
    return {"verdict": (SAME if same else CLOSE) if right else WRONG, "reason": reason} | figures


def _mean_distance(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray], rate: int) -> float:
    """Mean log-mel distance, in dB."""
    pairs = zip(expected, actual, strict=True)
    return float(np.mean([log_mel_distance(wanted, found, rate) for wanted, found in pairs]))


def verdict_of(row: Row) -> str:
    """Of a row of `compare_reference`: the same weights and random numbers must give the same tokens."""
    if "tokens" not in row:
        return NOT_RUN
    return SAME if row["equal"] == row["tokens"] else WRONG


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
