"""`barkfast bench`: check, then measure speed beside other implementations and the machine's limits."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from barkfast.cli import bench_serve
from barkfast.cli.checks import naming
from barkfast.cli.options import add_model_options
from barkfast.cli.results import Result, deliver, json_path, new_file, progress_clock
from barkfast.errors import InputError
from barkfast.files import check_writable, expand


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "bench",
        help="check, then time every stage of a clip, beside peers and the machine's limits",
        description=(
            "Check that this machine computes what it should, then time clips stage by stage. Exit status 1 if the "
            "check fails, or if anything that was asked for could not be measured; what was measured is kept."
        ),
    )
    add_model_options(parser)
    parser.add_argument(
        "--voice", help='"none" (the default), "full" for one that fills every history, a name, or an .npz file'
    )
    parser.add_argument("--seconds", type=float, help="length of a clip (default: 10)")
    parser.add_argument("--repeats", type=int, default=5, help="clips; slow peers speak fewer (default: 5)")
    parser.add_argument(
        "--batch", default="1,2,4,8", metavar="N,N", help="jobs together, timed by the step (default: 1,2,4,8)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first clip; the next ones count up")
    parser.add_argument(
        "--compare", default="", metavar="PEERS", help="bark, transformers, torch, compiled, with commas between"
    )
    parser.add_argument(
        "--json", metavar="FILE", help='the result as json; "-" prints it, a folder gets a file with a telling name'
    )
    parser.add_argument("--plot", metavar="FOLDER", help="draw pictures of the result into a folder")
    parser.add_argument("--trace", metavar="FILE", help="write a Chrome trace of one more clip")
    bench_serve.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the arguments, then measure, print and plot."""
    bench_serve.check_options(args)
    return _run_clips(args) if args.serve is None else bench_serve.run(args)


def _run_clips(args: argparse.Namespace) -> int:
    peers = [name.strip() for name in args.compare.split(",") if name.strip()]
    if args.repeats < 1:
        raise InputError(f"--repeats is {args.repeats}; expected at least 1 clip")
    if not 0 <= args.seed < 2**62:
        raise InputError(f"--seed is {args.seed}; expected 0 to {2**62 - 1}")

    from barkfast.bench.backends import check_peers
    from barkfast.bench.bench import check_arguments, run_bench
    from barkfast.bench.measure import check_batches
    from barkfast.bench.report import COMPLETE, OK, print_result
    from barkfast.bench.workload import Workload

    with naming("--seconds"):
        voice = "none" if args.voice is None else args.voice
        seconds = 10.0 if args.seconds is None else args.seconds
        workload = Workload(
            args.model, args.device, args.dtype, args.engine, voice, seconds, args.seed, small=args.small
        )
    with naming("--batch"):
        batches = _read_numbers(args.batch)
        check_batches(batches)
    with naming("--compare"):
        check_peers(peers)
    workload = workload.resolve()
    trace = None if args.trace is None else expand(args.trace)
    out = json_path(args.json, lambda folder: _result_path(folder, workload))
    for option, path in (("--json", out), ("--trace", trace)):
        with naming(option):
            check_arguments((), 1, path, None)
    plot = None
    if args.plot is not None:
        from barkfast.bench.plots import make_folder, plot_all

        with naming("--plot"):
            check_writable(make_folder(expand(args.plot)) / "waterfall.png")
        plot = partial(plot_all, folder=expand(args.plot))

    def measure() -> Result:
        return run_bench(
            workload, compare=peers, repeats=args.repeats, out=out, trace=trace, batches=batches, say=progress_clock()
        )

    result = deliver(measure, args.json, out, print_result, plot)
    whole = result["status"] == COMPLETE and all(row["status"] == OK for row in result["contenders"])
    return 0 if whole else 1


def _read_numbers(text: str) -> list[int]:
    """Whole numbers with commas between."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise InputError(f"expected whole numbers with commas between, such as 1,4,8, not {text!r}")
    return [int(word) for word in words]


def _result_path(folder: Path, workload: Any) -> Path:
    """A new file, named after machine, model, dtype and day."""
    from barkfast.bench.machine import describe_machine

    machine = describe_machine(workload.device)
    model = Path(workload.open().name).name
    words = ("bench", machine["device"]["name"], model, workload.dtype, machine["date"][:10])
    return new_file(folder, words)
