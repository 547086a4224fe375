"""`python -m benchmarks cpu | gpu | gpu-full`: check, time, judge, and write it all down, whatever goes wrong.

Every step is a process with a time limit. Results are written anew after every step and every few seconds, so that
nothing is lost if this process is ended from outside. On a GPU it needs nothing installed: it says by itself what the
interpreter lacks.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import pages
from benchmarks.budget import GPU_BUDGETS, Budget, count_threads, cpu_budget
from benchmarks.process import ROOT
from benchmarks.runner import Run, Unusable, prepare_environment

# The exit status of an interpreter that cannot run on a GPU: the Makefile then makes a virtual environment.
UNUSABLE = 3
# For a smoke test of what is for a GPU, on any machine.
SMOKE_S = 900


def main(argv: list[str] | None = None) -> int:
    """Run the steps, print the table, what failed and what was found.

    Returns the exit status: 0 if nothing failed, 1 if something did, 3 if it cannot run here.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", choices=("cpu", *GPU_BUDGETS), help="what to run")
    parser.add_argument(
        "--smoke", action="store_true", help="the smallest model, on a CPU: to see that everything runs"
    )
    parser.add_argument("--full", action="store_true", help="cpu: also what takes many minutes more")
    parser.add_argument("--only", default="", help="steps or sections to run, with commas between")
    parser.add_argument("--threads", default="", help="cpu: how many, with commas between; 1 and all cores by default")
    parser.add_argument("--results", type=Path, help="the folder for the results")
    parser.add_argument("--seconds", type=float, help="for everything, instead of the run's own")
    options = parser.parse_args(argv)
    budget = choose_cpu(parser, options) if options.run == "cpu" else GPU_BUDGETS[options.run]
    if budget is None:
        return UNUSABLE
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prebuilt = os.environ.get("BARKFAST_PROBE")
    prepare_environment()
    smoke_on_gpu = options.smoke and not budget.threads
    if not budget.threads:
        os.environ.pop("TRITON_INTERPRET", None)
    if smoke_on_gpu:
        os.environ.update(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    if options.smoke:
        base = Path(tempfile.mkdtemp(prefix="benchmark-smoke-"))
    else:
        base = ROOT / "build" / time.strftime(f"{budget.name}-%Y%m%d-%H%M%S", time.gmtime())
    work = base / "logs"
    work.mkdir(parents=True, exist_ok=True)
    run = Run(
        budget=budget,
        smoke=options.smoke,
        folder=options.results or (base if options.smoke else ROOT / "benchmarks" / "results"),
        work=work,
        only=tuple(filter(None, options.only.split(","))),
        total=options.seconds or (SMOKE_S if smoke_on_gpu else None),
        prebuilt=Path(prebuilt) if prebuilt else None,
    )
    try:
        merged = run.run()
    except Unusable as error:
        shutil.rmtree(base, ignore_errors=True)
        print(f"{sys.executable} cannot run this as it is: {error}", file=sys.stderr)
        print(f"nothing was run; `python -m benchmarks {budget.name} --smoke` goes the same paths on a CPU", flush=True)
        return UNUSABLE
    return report(run, merged)


def choose_cpu(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Budget | None:
    """The steps on a CPU; None, said on the terminal, without the native module."""
    # Only here: on a GPU's machine barkfast may lack what this imports.
    from barkfast.cores import physical_cores
    from barkfast.native import native_status

    cores = physical_cores()
    usual = (1,) if options.smoke else count_threads(cores)
    threads = tuple(int(n) for n in options.threads.split(",") if n) or usual
    if not 1 <= min(threads) <= max(threads) <= cores:
        parser.error(f"--threads is {options.threads}; expected numbers from 1 to {cores}, the cores of this machine")
    present, why = native_status()
    if not present:
        print(f"nothing was run: the native module is {why}", flush=True)
        return None
    return cpu_budget(threads, full=options.full, smoke=options.smoke)


def report(run: Run, merged: dict[str, Any]) -> int:
    """Print the table, what failed and what was found; the exit status: 0 if nothing failed."""
    print(f"\n{pages.render(merged)}", flush=True)
    where = run.path.relative_to(ROOT) if run.path and run.path.is_relative_to(ROOT) else run.path
    print(f"results: {where}; logs: {run.work}", flush=True)
    if merged["failed"]:
        print(f"FAILED, {len(merged['failed'])}:", flush=True)
        for line in merged["failed"]:
            print(f"  {line}", flush=True)
    print("everything that could be run ran" if merged["ok"] else "NOT everything went well", flush=True)
    for line in merged.get("verdict", ()):
        print(f"  {line}", flush=True)
    return 0 if merged["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
