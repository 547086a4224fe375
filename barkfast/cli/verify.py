"""`barkfast verify`: check that every engine and dtype computes correctly on this machine with these weights."""

import argparse
import json
from typing import Any

from barkfast.cli.options import add_model_options
from barkfast.cli.process import note

# The last column is the log-mel distance of the sound of the engine's own fine codes, which rounding may change.
HEAD = ["", "device", "verdict", "tokens equal", "rms ratio", "KL in nats", "log-mel dB", "of own codes"]


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "verify",
        help="compare every engine and dtype with float32 torch, and with `bark` if it is installed",
        description="Run every engine and dtype of this machine, teacher-forced, on the tokens that the torch engine "
        "chooses in float32 for real sentences with voices, and compare tokens, logits and sound. Ends with status 0 "
        "only if nothing is wrong.",
    )
    add_model_options(parser, one=False)
    parser.add_argument("--engine", action="append", metavar="NAME", help="only this one; may be given several times")
    parser.add_argument("--dtype", action="append", metavar="NAME", help="only this one; may be given several times")
    parser.add_argument("--languages", type=int, default=13, metavar="N", help="sentences, 1 to 13 (default: all)")
    parser.add_argument("--json", action="store_true", help="print it as json, with all that is known of the machine")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare, print, and return 1 if anything is wrong or nothing could be compared."""
    from barkfast.bench.verify import is_right, run_verify

    result = run_verify(
        args.model,
        args.device,
        small=args.small,
        engines=args.engine,
        dtypes=args.dtype,
        languages=args.languages,
        say=note,
    )
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print_result(result)
    return 0 if is_right(result) else 1


def _print_result(result: dict[str, Any]) -> None:
    """Print a table, the reasons of rows, notes, and the outcome."""
    from barkfast.bench.report import make_console, show
    from barkfast.bench.verify import is_right, wrong_rows

    console = make_console()
    voices = sum(name is not None for name in result["voices"].values())
    title = (
        f"{result['model']}, {len(result['languages'])} languages, {voices} of them with a voice, "
        f"against torch float32 on {result['device']}"
    )
    show(console, title, HEAD, [_cells(row) for row in result["rows"]])
    for row in result["rows"]:
        if row["reason"]:
            console.print(f"{_name(row)}: {row['reason']}")
    for remark in result["notes"]:
        console.print(remark)
    wrong = wrong_rows(result)
    if wrong:
        console.print(f"WRONG: {', '.join(map(_name, wrong))}", style="bold red")
    else:
        console.print("nothing is wrong" if is_right(result) else "nothing could be compared", style="bold")


def _name(row: dict[str, Any]) -> str:
    return " ".join(part for part in (row["engine"], row["dtype"], row["stage"]) if part)


def _cells(row: dict[str, Any]) -> list[str]:
    def figure(value: float | None, limit: float | None = None) -> str:
        return "" if value is None else f"{value:.2g}" + ("" if limit is None else f" (limit {limit:g})")

    return [
        *(_name(row), row["device"], row["verdict"]),
        f"{row['equal']} of {row['tokens']}" if row.get("tokens") else "",
        figure(row.get("rms_ratio"), row.get("limit")),
        figure(row.get("kl_nats")),
        figure(row.get("log_mel_db"), row.get("limit_db")),
        figure(row.get("own_log_mel_db")),
    ]
