"""`barkfast profile`: the time of each kernel of one decode step, beside the time that reading its bytes takes."""

import argparse
import json
import sys
from typing import Any

from barkfast.cli.options import add_model_options

# "floor us" is the roofline: the time to read the bytes. "to be won us" is the time beyond it.
COLUMNS = ("part", "times", "us", "share", "MB", "GB/s", "floor us", "to be won us")


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "profile",
        help="time each kernel of a decode step against what it must read",
        description="Time one decode step and each of its kernels, beside the time that reading their bytes takes on "
        "this machine: how much can be gained, and where.",
    )
    add_model_options(parser)
    parser.add_argument(
        "--stage", choices=("semantic", "coarse"), default="coarse", help="whose step (default: coarse)"
    )
    parser.add_argument(
        "--context", type=int, metavar="N", help="positions it attends to (default: as usual in speech)"
    )
    parser.add_argument("--json", action="store_true", help="print it as json, with the machine it was measured on")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load one network, profile its decode step, and print what can be gained."""
    from barkfast.bench.machine import describe_machine
    from barkfast.bench.profile import profile_step
    from barkfast.bench.workload import Workload, open_bark

    workload = Workload(
        args.model, device=args.device, dtype=args.dtype, engine=args.engine, small=args.small
    ).resolve()
    bark = open_bark(workload)
    machine = describe_machine(workload.device)
    profile = profile_step(bark, args.stage, context=args.context, device=workload.device)
    profile = {"model": bark.checkpoint.name, **profile}
    if args.json:
        print(json.dumps({**profile, "environment": machine}, indent=2))
        return 0
    threads = f", {machine['threads']} thread{'s' * (machine['threads'] != 1)}" if workload.device == "cpu" else ""
    print(f"{machine['device']['name']}{threads}")
    print(
        f"a {profile['stage']} step of {profile['model']}, {profile['dtype']}, {profile['engine']} engine, "
        f"{profile['context']} positions: {profile['us']:.1f} us"
    )
    print(
        f"it must read {profile['bytes'] / 1e6:.1f} MB, which takes {profile['floor_us']:.1f} us "
        f"at the {profile['read_gb_per_s']:.1f} GB/s that were measured here"
    )
    rows = [format_part(part) for part in profile["parts"]]
    print_table(COLUMNS, rows)
    print(advise(profile))
    return 0


def advise(profile: dict[str, Any]) -> str:
    """The last line: which part to work on."""
    from barkfast.bench.profile import REST, to_be_won

    first = next((part for part in profile["parts"] if part["part"] != REST), None)
    if first is None:
        return f"nothing is known of the parts ({profile['note']})"
    won = to_be_won(first)
    return f"work on {first['part']} first: there are {won:.1f} us to be won in it ({profile['note']})"


def format_part(part: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a row; a dash for an unknown value."""

    def show(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    floor, size = part["floor_us"], part["bytes"]
    return (
        part["part"],
        f"{part['count']:g}",
        show(part["us"]),
        f"{part['share']:.1%}",
        show(None if size is None else size / 1e6, 2),
        show(part["gb_per_s"]),
        show(floor),
        show(None if floor is None else part["us"] - floor),
    )


def print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A rich table on a terminal, plain columns elsewhere; the first column is text, the others are numbers."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        # Names of kernels are not markup.
        Console(markup=False, highlight=False).print(table)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join((row[0].ljust(widths[0]), *cells)))
