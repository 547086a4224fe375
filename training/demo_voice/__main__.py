"""Train the demo voice: run every stage that is not done yet, or the named ones, each as soon as its inputs are done.

After an interruption, a new start resumes the work: trainings at their last checkpoint, at most two minutes old.
"""

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from .work import Work

# Stage -> its function, and the stages whose results it reads.
STAGES = {
    "corpus": ("corpus.run", ()),
    "synth": ("synth.run", ("corpus",)),
    "units": ("dataset.run", ("synth",)),
    "sentences": ("sentences.run", ("units",)),
    "rvq": ("rvq.run", ("synth",)),
    "codes": ("codes.run", ("rvq",)),
    # The long ones first: waiting stages start in this order.
    "t2s": ("t2s.run", ("units",)),
    "decoder": ("decoder.run", ("codes",)),
    "coarse": ("coarse.run", ("units", "codes")),
    "t2s_full": ("t2s.run_full", ("t2s",)),
    "coarse_full": ("coarse.run_full", ("coarse",)),
    "fine": ("fine.run", ("codes",)),
    "fine_full": ("fine.run_full", ("fine",)),
    "predict": ("predict.run", ("fine_full",)),
    "decoder_tune": ("decoder.run_tune", ("decoder", "predict")),
    "encoder": ("encoder.run", ("codes",)),
    "export": ("export.run", ("decoder_tune", "t2s_full", "coarse_full", "encoder")),
    "voices": ("voices.run", ("export",)),
    "evaluate": ("evaluate.run", ("voices",)),
}


def run_stage(work: Work, stage: str) -> None:
    """Run one stage in this process and record its time."""
    module, function = STAGES[stage][0].split(".")
    start = time.time()
    facts = getattr(importlib.import_module(f".{module}", __package__), function)(work)
    work.record(stage, time.time() - start, done=True, facts=facts)
    print(f"{stage}: {time.time() - start:.0f} s, {facts}", flush=True)


def run_all(work: Work, jobs: int, threads: int) -> None:
    """Run the stages that are not done, up to `jobs` at a time, each in its own process with its own log."""
    running: dict[str, subprocess.Popen] = {}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    while left := [stage for stage in STAGES if not work.is_done(stage)]:
        for stage in left:
            ready = stage not in running and all(work.is_done(needed) for needed in STAGES[stage][1])
            if ready and len(running) < jobs:
                print(f"{stage}: started, see {work.path(f'logs/{stage}.log')}", flush=True)
                command = [sys.executable, "-m", __package__, stage, "--work", str(work.folder)]
                with open(work.path(f"logs/{stage}.log"), "a", encoding="utf-8") as log:
                    running[stage] = subprocess.Popen(
                        [*command, "--threads", str(threads)], stdout=log, stderr=log, env=environment
                    )
        time.sleep(1)
        for stage, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[stage]
            if process.returncode:
                raise SystemExit(f"{stage} failed; see {work.path(f'logs/{stage}.log')}. Start again to continue")
            print(f"{stage}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"run these, done or not: {', '.join(STAGES)}")
    parser.add_argument("--work", type=Path, default=Path("build/demo_voice"), help="folder (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="stages side by side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each job (default: %(default)s)")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FOLDER",
        help="an exported model: t2s_full continues its training, export copies what is not trained here",
    )
    args = parser.parse_args()
    if unknown := set(args.stages) - set(STAGES):
        parser.error(f"no stage {', '.join(sorted(unknown))}; expected {', '.join(STAGES)}")
    if args.start and not args.stages:
        parser.error("--start is for stages that are named, such as: t2s_full export evaluate")
    torch.set_num_threads(args.threads)
    work = Work(args.work, "cuda" if torch.cuda.is_available() else "cpu", args.start)
    if not args.stages:
        run_all(work, args.jobs, args.threads)
    for stage in args.stages:
        run_stage(work, stage)


if __name__ == "__main__":
    main()
