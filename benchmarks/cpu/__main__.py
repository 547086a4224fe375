"""`make cpu`: check, time, compare, and write it all down, whatever goes wrong on the way.

Every step is a process with a time limit and a number of threads. Results are written anew after every step, so that
nothing is lost if this process is ended from outside.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from barkfast.bench.machine import count_cores
from barkfast.native import native_status
from benchmarks.cpu import steps, table
from benchmarks.cpu.run import CpuRun
from benchmarks.process import ROOT
from benchmarks.runner import prepare_environment, report


def main(argv: list[str] | None = None) -> int:
    """Run, print the table and what failed; 0 if nothing did."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="the smallest model, to see that everything runs")
    parser.add_argument("--full", action="store_true", help=f"also {', '.join(steps.FULL)}: many minutes more")
    parser.add_argument("--only", default="", help="steps or sections to run, with commas between")
    parser.add_argument("--threads", default="", help="how many to measure with, with commas between; 1 and all cores")
    parser.add_argument("--results", type=Path, help="the folder for the results")
    parser.add_argument("--seconds", type=float, help="for everything")
    options = parser.parse_args(argv)
    cores = count_cores()
    usual = (1,) if options.smoke else steps.count_threads(cores)
    threads = tuple(int(n) for n in options.threads.split(",") if n) or usual
    if not 1 <= min(threads) <= max(threads) <= cores:
        parser.error(f"--threads is {options.threads}; expected numbers from 1 to {cores}, the cores of this machine")
    present, why = native_status()
    if not present:
        print(f"nothing was run: the native module is {why}", flush=True)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare_environment()
    if options.smoke:
        base = Path(tempfile.mkdtemp(prefix="benchmark-smoke-"))
    else:
        base = ROOT / "build" / time.strftime("bench-%Y%m%d-%H%M%S", time.gmtime())
    work = base / "logs"
    work.mkdir(parents=True, exist_ok=True)
    run = CpuRun(
        smoke=options.smoke,
        folder=options.results or (base if options.smoke else ROOT / "benchmarks" / "results"),
        work=work,
        only=tuple(filter(None, options.only.split(","))),
        total=options.seconds or (steps.FULL_TOTAL if options.full else steps.TOTAL),
        threads=threads,
        full=options.full,
    )
    merged = run.run()
    return report(run, merged, table.render(merged))


if __name__ == "__main__":
    sys.exit(main())
