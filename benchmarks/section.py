"""One section in a process of its own: `python -m benchmarks.section NAME --out FILE ...`."""

import argparse
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from benchmarks.plan import Plan
from benchmarks.record import Recorder

# The exit status of a section whose runner was killed, and seconds between looks at whether it was.
ORPHANED, LOOK_S = 71, 1.0


def end_with(parent: int) -> None:
    """End this process when its parent is gone: it would hold the device, and nobody would read what it measures."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(ORPHANED)


def main(argv: list[str] | None = None) -> int:
    """Run the section; 0 if no row failed, 1 if some did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a module of benchmarks.sections, and a part of it after a blank")
    parser.add_argument("--out", type=Path, required=True, help="the file for the rows")
    parser.add_argument("--work", type=Path, required=True, help="a folder for anything else")
    parser.add_argument("--models", type=Path, required=True, help="a folder with a converted model per size")
    parser.add_argument("--seconds", type=float, default=60, help="until it will be ended")
    parser.add_argument("--dtypes", default="", help="those that may be timed, with commas between")
    parser.add_argument("--wrong", type=json.loads, default=[], help="[dtype, kernels] that may not, as JSON")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU, for what is measured on it")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args(argv)
    # One that is ended at its time limit says where it was.
    faulthandler.register(signal.SIGTERM, chain=True)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    plan = Plan(
        smoke=options.smoke,
        models=options.models,
        work=options.work,
        deadline=time.monotonic() + options.seconds,
        dtypes=tuple(filter(None, options.dtypes.split(","))),
        threads=options.threads,
        wrong=tuple(map(tuple, options.wrong)),
    )
    module, _, part = options.name.partition(" ")
    record = Recorder(options.out, plan)
    run = importlib.import_module(f"benchmarks.sections.{module}").run
    run(plan, record, *([part] if part else []))
    record.finish()
    return 0 if record.all_well else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's own end: what libraries do there with a device in trouble can hang.
    os._exit(status)
