"""Kernel variants against one another: which are right, and what they take in turn."""

import contextlib
import faulthandler
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from barkfast.bench.compare import count_equal, rms_ratio
from barkfast.bench.measure import EndedEarly
from barkfast.bench.teacher_forced import ForcedPass, count_alone, run_greedy, teacher_force
from barkfast.jobs import Job
from barkfast.runtime.decoder import Decoder

# Of logits against the base variant's, at every step: the same sums in another order.
LIMIT = 0.01
# Steps whose logits are compared where all tokens are equal.
FIRST_STEPS = 8
# Rounds that count: at least and at most.
LEAST, MOST = 3, 20

Row = dict[str, Any]


def compare(decoder: Decoder, job: Job, path: ForcedPass) -> Row:
    """Whether a variant computes what the base variant does: the same tokens, or where they differ the same logits.

    Equal tokens alone prove little, for the likeliest is often so by far: the first logits are compared in any case.

    Args:
        job: greedy.
        path: what the base said at each step of it.

    Returns a row: `ok`, how many tokens are `equal` of how many, `rms` of the step whose logits are farthest off, and
    why it is wrong.

    Raises: EngineError for logits that are not finite.
    """
    tokens = run_greedy(decoder, job)
    equal = count_equal(path.tokens, tokens)
    same = equal == len(path.tokens) == len(tokens)
    n = FIRST_STEPS if same else len(path.tokens)
    led = teacher_force(decoder, job, path.tokens[:n])
    errors = [rms_ratio(*pair) for pair in zip(path.logits[:n], led.logits, strict=True)]
    row = {"ok": True, "equal": equal, "tokens": len(path.tokens), "rms": max(errors), "reason": ""}
    if not row["rms"] < LIMIT:
        step = errors.index(row["rms"]) + 1
        row |= {
            "ok": False,
            "reason": f"wrong: logits of step {step} are off by {row['rms']:.3g} rms, of {LIMIT} allowed",
        }
    elif not same:
        # Logits are seen a step at a time; several steps in one graph must come to the same.
        agree, of = count_alone(decoder, job, path.tokens, led.tokens)
        if agree < of:
            reason = f"wrong: {of - agree} of {of} tokens differ between single steps and replays"
            row |= {"ok": False, "reason": reason}
    return row


def interleave(
    labels: Sequence[str],
    time_one: Callable[[str, int], list[float]],
    *,
    left: Callable[[], bool],
    on_failure: Callable[[str, Exception], None],
    least: int = LEAST,
    most: int = MOST,
) -> dict[str, list[list[float]]]:
    """Times of each by round, in turn: what else happens on the machine meets all of them.

    Args:
        time_one: (label, round) -> times; raises EndedEarly for one that does not count.
            Round 0 warms up and never counts.
        left: whether there is time for more than the least number of rounds.
        on_failure: told of one that failed; it takes no further part, and has no times.
    """
    times: dict[str, list[list[float]]] = {label: [] for label in labels}
    for index in range(most + 1):
        if not times or (index > least and not left()):
            break
        # Another one begins each round, and so another one runs behind each.
        shift = index % len(labels)
        for label in [*labels[shift:], *labels[:shift]]:
            if label not in times:
                continue
            try:
                found = time_one(label, index)
            except EndedEarly:
                continue
            except Exception as error:
                del times[label]
                on_failure(label, error)
                continue
            if index:
                times[label].append(found)
    return times


class Watch:
    """Ends the process when a variant takes too long, and remembers which it was for the process that goes on.

    A kernel that hangs cannot be stopped from Python, nor is Python sure to run: faulthandler's own thread ends the
    process.

    Args:
        path: names the variant at work.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def take_last(self) -> str | None:
        """The variant at which the process before this one ended, if it did."""
        if not self.path.exists():
            return None
        label = self.path.read_text(encoding="utf-8")
        self.path.unlink()
        return label

    @contextlib.contextmanager
    def over(self, label: str, seconds: float) -> Iterator[None]:
        """Let the block take that long."""
        self.path.write_text(label, encoding="utf-8")
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.path.unlink(missing_ok=True)
