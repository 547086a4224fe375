"""`make gpu` and `make gpu-full`: check, time, compare, and write it all down, whatever goes wrong on the way.

Every step is a process with a time limit. Results are written anew after every step and every few seconds, so that
nothing is lost if this process is ended from outside. It needs nothing installed: `benchmarks.gpu gpu` says by itself
what the interpreter lacks.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import runner, table
from benchmarks.budget import BUDGETS
from benchmarks.process import ROOT
from benchmarks.run import Run, Unusable

# The exit status of an interpreter that cannot run the call: the Makefile then makes a virtual environment.
UNUSABLE = 3
# For a smoke test, on any machine.
SMOKE_S = 900


def prepare_environment(smoke: bool) -> None:
    """What all processes see, on a GPU or, in a smoke test, in Triton's interpreter."""
    runner.prepare_environment()
    os.environ.pop("TRITON_INTERPRET", None)
    if smoke:
        os.environ.update(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


def main(argv: list[str] | None = None) -> int:
    """Run a call, print the table, what failed and what was found; 0 if nothing failed, 3 if it cannot run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", nargs="?", choices=BUDGETS, default="gpu", help="what to run")
    parser.add_argument("--smoke", action="store_true", help="on the CPU, to see that everything runs")
    parser.add_argument("--only", default="", help="steps to run, with commas between")
    parser.add_argument("--results", type=Path, help="the folder for the results")
    parser.add_argument("--seconds", type=float, help="for everything, instead of the call's own")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prebuilt = os.environ.get("BARKFAST_PROBE")
    prepare_environment(options.smoke)
    budget = BUDGETS[options.call]
    if options.smoke:
        base = Path(tempfile.mkdtemp(prefix="benchmark-smoke-"))
    else:
        base = ROOT / "build" / time.strftime(f"{budget.name}-%Y%m%d-%H%M%S", time.gmtime())
    work = base / "logs"
    work.mkdir(parents=True, exist_ok=True)
    run = Run(
        budget=budget,
        prebuilt=Path(prebuilt) if prebuilt else None,
        smoke=options.smoke,
        folder=options.results or (base if options.smoke else ROOT / "benchmarks" / "results"),
        work=work,
        only=tuple(filter(None, options.only.split(","))),
        total=options.seconds or (SMOKE_S if options.smoke else budget.total),
    )
    try:
        merged = run.run()
    except Unusable as error:
        shutil.rmtree(base, ignore_errors=True)
        print(f"{sys.executable} cannot run this as it is: {error}", file=sys.stderr)
        print("nothing was run; --smoke (make gpu GPU_ARGS=--smoke) goes the same paths without a GPU", flush=True)
        return UNUSABLE
    return runner.report(run, merged, table.render(merged))


if __name__ == "__main__":
    sys.exit(main())
