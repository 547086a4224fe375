"""One section in a process of its own: `python -m benchmarks.section NAME FILE PLAN`."""

import argparse
import faulthandler
import importlib
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
    parser.add_argument("out", type=Path, help="the file for the rows")
    parser.add_argument("plan", type=Plan.read, help="a Plan as JSON")
    options = parser.parse_args(argv)
    # One that is ended at its time limit says where it was.
    faulthandler.register(signal.SIGTERM, chain=True)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    module, _, part = options.name.partition(" ")
    record = Recorder(options.out, options.plan)
    run = importlib.import_module(f"benchmarks.sections.{module}").run
    run(options.plan, record, *([part] if part else []))
    record.finish()
    return 0 if record.all_well else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's own end: what libraries do there with a device in trouble can hang.
    os._exit(status)
