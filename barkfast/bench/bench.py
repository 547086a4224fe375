"""`barkfast bench`: first that the results are right, then how fast they come, beside peers and this machine's best."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from barkfast.bench import gate
from barkfast.bench.batch import BATCHES, check_batches
from barkfast.bench.memory import check_memory
from barkfast.bench.peers import find_peers
from barkfast.bench.result import COMPLETE, PARTIAL, RED, describe_check
from barkfast.bench.rounds import Make, Run, Say
from barkfast.bench.worker import Remote
from barkfast.bench.workload import Workload, voice_of
from barkfast.errors import InputError
from barkfast.files import check_writable

REPEATS = 5
# Seconds after which no further round of a peer is begun: so slow ones speak once, and everything ends in minutes.
BUDGET_S = 300.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the gate was passed; `result` holds what had been measured."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__("interrupted")
        self.result = result


def check_arguments(compare: Sequence[str], repeats: int, out: Path | None, trace: Path | None) -> None:
    """Everything that can be checked before anything is loaded. Errors: InputError."""
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; expected at least 1 clip")
    find_peers(list(compare))
    for path in (out, trace):
        if path is not None:
            check_writable(path)


def run_bench(
    workload: Workload,
    *,
    compare: Sequence[str] = (),
    repeats: int = REPEATS,
    out: Path | None = None,
    trace: Path | None = None,
    batches: Sequence[int] = BATCHES,
    say: Say = print,
    budget_s: float = BUDGET_S,
    make: Make = Remote,
) -> dict[str, Any]:
    """Measure a workload.

    What is wrong is not timed: where the gate finds anything wrong the result says so, and no more.

    Args:
        compare: names of peers, see barkfast.bench.peers.
        repeats: clips of barkfast; peers speak as many where the budget allows it, else fewer, but at least one.
        out: a file for the result, complete and valid after every clip.
        trace: a file for a Chrome trace of one more clip.
        batches: how many jobs together, to be timed by the step; none for none.
        say: called with a line about what is going on.
        budget_s: seconds after which no further round of a peer is begun.
        make: makes a backend; by default one with a process of its own.
    Returns: the result, as barkfast/bench/schema.json describes it.
    Errors: InputError, EngineError before anything is timed; Interrupted.
    """
    check_arguments(compare, repeats, out, trace)
    check_batches(batches)
    workload = workload.resolve()
    voice_of(workload.open(), workload)
    check_memory(workload)
    run = Run(workload, repeats, out, say)
    say(f"checking that the {workload.engine} engine computes in {workload.dtype} what it should")
    checks = gate.check(workload)
    run.result["gate"] = {"ok": gate.gate_ok(checks), "checks": [describe_check(asdict(check)) for check in checks]}
    if not run.result["gate"]["ok"]:
        return run.finish(RED)
    try:
        run.measure(list(dict.fromkeys(compare)), trace, budget_s, make)
        run.time_batches(batches)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(run.finish(PARTIAL)) from interrupt
    finally:
        run.close()
    return run.finish(COMPLETE if run.whole else PARTIAL)
