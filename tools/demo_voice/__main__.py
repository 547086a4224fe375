"""`python -m tools.demo_voice`: run every stage that is not done yet, or those named, in order.

Started again after a cut-off it goes on where it was. `--jobs 2` trains two networks side by side, one thread each.
"""

import argparse
import importlib
import time
from pathlib import Path

import torch

from .work import Work

# Stage -> its module and function.
STAGES = {
    "corpus": "corpus.run",
    "synth": "synth.run",
    "units": "dataset.run",
    "rvq": "rvq.run",
    "codes": "codes.run",
    "decoder": "decoder.run",
    "t2s": "t2s.run",
    "t2s_full": "t2s.run_full",
    "coarse": "coarse.run",
    "coarse_full": "coarse.run_full",
    "fine": "fine.run",
    "fine_full": "fine.run_full",
    "encoder": "encoder.run",
    "export": "export.run",
    "voices": "voices.run",
    "evaluate": "evaluate.run",
}


def run_stage(work: Work, stage: str) -> None:
    """Run one stage and record its time."""
    start = time.time()
    module, function = STAGES[stage].split(".")
    facts = getattr(importlib.import_module(f".{module}", __package__), function)(work)
    work.record(stage, time.time() - start, done=True, facts=facts)
    print(f"{stage}: {time.time() - start:.0f} s, {facts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_voice", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"one or more of: {', '.join(STAGES)}")
    parser.add_argument("--work", type=Path, default=Path("build/demo_voice"), help="folder (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each job (default: %(default)s)")
    args = parser.parse_args()
    if unknown := set(args.stages) - set(STAGES):
        parser.error(f"no stage {', '.join(sorted(unknown))}; expected {', '.join(STAGES)}")
    torch.set_num_threads(args.threads)
    work = Work(args.work, "cuda" if torch.cuda.is_available() else "cpu")
    for stage in args.stages or STAGES:
        if args.stages or not work.is_done(stage):
            run_stage(work, stage)


if __name__ == "__main__":
    main()
