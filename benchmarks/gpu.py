"""`make gpu`: check, time, compare, and write it all down, whatever goes wrong on the way.

Every step is a process with a time limit. Results are written anew after every step, so that nothing is lost if this
process is ended from outside.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import budget, runner, table
from benchmarks.process import ROOT
from benchmarks.run import Run


def prepare_environment(smoke: bool) -> None:
    """What all processes see, on a GPU or, in a smoke test, in Triton's interpreter."""
    runner.prepare_environment()
    os.environ.pop("TRITON_INTERPRET", None)
    if smoke:
        os.environ.update(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


def main(argv: list[str] | None = None) -> int:
    """Run, print the table and what failed; 0 if nothing did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="on the CPU, to see that everything runs")
    parser.add_argument("--only", default="", help="steps to run, with commas between")
    parser.add_argument("--results", type=Path, help="the folder for the results")
    parser.add_argument("--seconds", type=float, default=budget.TOTAL, help="for everything")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare_environment(options.smoke)
    # In a process of its own: this one must not hold the device.
    if not options.smoke and subprocess.run([sys.executable, "-m", "benchmarks.usable"]).returncode:
        print("nothing was run; --smoke (make gpu GPU_ARGS=--smoke) goes the same paths without a GPU", flush=True)
        return 2
    if options.smoke:
        base = Path(tempfile.mkdtemp(prefix="benchmark-smoke-"))
    else:
        base = ROOT / "build" / time.strftime("gpu-%Y%m%d-%H%M%S", time.gmtime())
    work = base / "logs"
    work.mkdir(parents=True, exist_ok=True)
    folder = options.results or (base if options.smoke else ROOT / "benchmarks" / "results")
    run = Run(
        smoke=options.smoke,
        folder=folder,
        work=work,
        only=tuple(filter(None, options.only.split(","))),
        total=options.seconds,
    )
    merged = run.run()
    return runner.report(run, merged, table.render(merged))


if __name__ == "__main__":
    sys.exit(main())
