"""`barkfast bench --serve`: load on a speech server."""

import argparse
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from barkfast.cli.checks import naming
from barkfast.cli.results import Result, deliver, json_path, new_file, progress_clock
from barkfast.errors import InputError
from barkfast.files import check_writable, expand

# What only one of the two measurements has, with the values that stand for "not given".
CLIPS = {"small": False, "device": "auto", "dtype": "auto", "engine": "auto", "repeats": 5, "batch": "1,2,4,8"}
CLIPS |= {"compare": "", "trace": None}
SERVE = ("rates", "requests", "words", "key")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a speech server."""
    group = parser.add_argument_group(
        "a speech server",
        "With --serve, --model and --voice are what requests name (default: tts-1, alloy), and --seconds is for how "
        "long they arrive at each rate (default: 60). Exit status 1 if a request failed; refusals are counted.",
    )
    group.add_argument("--serve", metavar="URL", help="send requests to a server of POST /v1/audio/speech instead")
    group.add_argument("--rates", metavar="R,R", help="requests per second, in turn (default: 0.25,0.5,1)")
    group.add_argument("--requests", type=int, metavar="N", help="how many at each rate, instead of --seconds")
    group.add_argument("--words", metavar="N-N", help="the fewest and the most words of a text (default: 5-25)")
    group.add_argument("--key", help="sent as a bearer token")


def check_options(args: argparse.Namespace) -> None:
    """Raise InputError for an option of the other measurement."""
    if args.serve is None:
        wrong = [name for name in SERVE if getattr(args, name) is not None]
    else:
        wrong = [name for name, default in CLIPS.items() if getattr(args, name) != default]
    if wrong:
        raise InputError(f"--{wrong[0]} goes {'only with' if args.serve is None else 'without'} --serve")


def run(args: argparse.Namespace) -> int:
    """Check the arguments, then send, print and plot."""
    from barkfast.bench.report import COMPLETE
    from barkfast.bench.serve import Load, require_httpx, run_serve
    from barkfast.bench.serve_report import plot_serve, print_serve

    require_httpx()
    if not 0 <= args.seed < 2**53:
        raise InputError(f"--seed is {args.seed}; expected 0 to {2**53 - 1}, which every JSON reader keeps")
    given: dict[str, Any] = {name: getattr(args, name) for name in ("model", "voice", "key", "seconds", "requests")}
    with naming("--rates"):
        given["rates"] = None if args.rates is None else tuple(map(_read_rate, args.rates.split(",")))
    with naming("--words"):
        given["words"] = None if args.words is None else _read_words(args.words)
    with naming("--serve"):
        load = Load(args.serve, seed=args.seed, **{name: value for name, value in given.items() if value is not None})
    out = json_path(args.json, lambda folder: new_file(folder, ("serve", urlsplit(load.url).netloc)))
    if out is not None:
        with naming("--json"):
            check_writable(out)
    plot = None
    if args.plot is not None:
        from barkfast.bench.plots import make_folder

        with naming("--plot"):
            folder = make_folder(expand(args.plot))
            check_writable(folder / "serve.png")
        plot = partial(plot_serve, folder=folder)

    def measure() -> Result:
        return run_serve(load, out=out, say=progress_clock())

    result = deliver(measure, args.json, out, print_serve, plot)
    whole = result["status"] == COMPLETE and not any(rate["failed"] for rate in result["rates"])
    return 0 if whole else 1


def _read_rate(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise InputError(f"expected numbers with commas between, such as 0.5,1,2, not {word!r}") from None


def _read_words(text: str) -> tuple[int, int]:
    least, dash, most = text.partition("-")
    if not (least.isdecimal() and (most.isdecimal() or not dash)):
        raise InputError(f"expected two whole numbers, such as 5-25, not {text!r}")
    return int(least), int(most or least)
