"""`barkfast say` for texts longer than one utterance, and for streamed sound."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

from barkfast.audio import check_output
from barkfast.cli import outputs
from barkfast.cli.inputs import count_characters, read_cast, read_file, read_script
from barkfast.cli.options import read_sampling
from barkfast.engine.results import real_time_factor
from barkfast.engine.segments import Piece
from barkfast.errors import InputError
from barkfast.normalize import normalize
from barkfast.text import check_text

# In a stream the next piece is generated while one is played; a larger batch would only delay the first piece.
AT_ONCE, AT_ONCE_STREAMED = 8, 2


def is_long(args: argparse.Namespace) -> bool:
    """Whether these arguments ask for more than one utterance in a file."""
    wanted = args.file is not None or args.script is not None or args.stream or args.play
    return wanted or args.overflow == "split"


def _open_output(args: argparse.Namespace) -> Callable[[int], AbstractContextManager[outputs.Write]]:
    """Check the output options; return a function that opens the output for a sample rate."""
    subtype = "FLOAT" if args.float else None
    if args.raw and not args.stream:
        raise InputError("--raw goes with --stream")
    if args.player is not None and not args.play:
        raise InputError("--player goes with --play")
    if args.mode is not None and args.output is not None:
        raise InputError("--mode goes with --stream or --play")
    if args.output is not None:
        check_output(args.output, subtype)
        return lambda rate: outputs.to_file(args.output, rate, subtype)
    if args.float:
        raise InputError("--float: streams hold 16-bit samples; write a file with -o FILE.wav")
    if args.play:
        player = outputs.find_player(args.player)
        return lambda rate: outputs.to_player(player, rate)
    outputs.check_pipe()
    return lambda rate: outputs.to_pipe(rate, args.raw)


def _open_source(args: argparse.Namespace) -> tuple[Callable[..., Any], int | None]:
    """Check the input options; return a function of model and options that speaks it, and its length in characters."""
    voice = args.voice
    if args.mode is not None and (args.script is not None or args.trim or args.at_once is not None):
        raise InputError("--mode goes with one voice and untrimmed sound, and not with --script, --trim or --at-once")
    if args.script is not None:
        if voice is not None:
            raise InputError("--voice: the speakers of a script have their own; give each one with --cast NAME=VOICE")
        voices = read_cast(args.cast)
        lines = [(line.speaker, line.text) for line in read_script(args.script, voices, args.markup)]
        total = sum(count_characters(text) for _, text in lines)
        return lambda bark, **options: bark.generate_script(lines, voices, **options), total
    if args.cast:
        raise InputError("--cast gives the speakers of a --script their voices; expected --voice here")
    method = "generate_long" if args.mode is None else "stream"
    if args.file is not None or args.text == "-":
        text, n_characters = read_file(args.text if args.file is None else args.file, args.markup)
        return lambda bark, **options: getattr(bark, method)(text, voice, **options), n_characters
    given = args.text if args.markup is None else normalize(args.text, args.markup)
    check_text(given)
    return lambda bark, **options: getattr(bark, method)(given, voice, **options), count_characters(given)


def _read_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that depend on how the sound is output."""
    if args.mode is not None:
        return {"mode": args.mode}
    at_once = args.at_once or (AT_ONCE if args.output is not None else AT_ONCE_STREAMED)
    return {"trim": args.trim is not False, "at_once": at_once}


@contextmanager
def showing_progress(total: int | None, show: bool) -> Iterator[Callable[[Piece], None]]:
    """Show a progress bar for `total` characters on standard error; yield a function that must be given each piece."""
    if not show:
        yield lambda piece: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # A piece takes seconds to minutes, so the speed of the last half minute would be meaningless.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=1800) as bar:
        task = bar.add_task("speaking", total=total)
        seconds, pieces = 0.0, 0

        def tell(piece: Piece) -> None:
            nonlocal seconds, pieces
            seconds, pieces = seconds + piece.seconds, pieces + 1
            bar.update(
                task, advance=count_characters(piece.text), description=f"{pieces} pieces, {seconds:.0f} s of sound"
            )

        yield tell


def run_long(args: argparse.Namespace, seed: int, bark_of: Callable[[], Any]) -> int:
    """Speak texts of any length.

    Args:
        args: the options that a short text has too are checked already.
        bark_of: creates the model.
    """
    if args.save_voice is not None:
        raise InputError("--save-voice: a voice is made of one utterance; say one sentence without --file or --stream")
    if args.at_once is not None and args.at_once < 1:
        raise InputError(f"--at-once is {args.at_once}; expected at least 1")
    opening = _open_output(args)
    speaking, total = _open_source(args)
    counted = {"pieces": 0}

    bark = bark_of()
    with showing_progress(total, not args.quiet and sys.stderr.isatty()) as tell:

        def on_piece(piece: Piece) -> None:
            counted["pieces"] += 1
            tell(piece)

        sounds = speaking(
            bark,
            chained=args.chained,
            language=args.language,
            seed=seed,
            on_piece=on_piece,
            **read_sampling(args),
            **_read_options(args),
        )
        start = time.perf_counter()
        bark.load()
        loaded = time.perf_counter()
        first, n_samples = None, 0
        with opening(bark.sample_rate) as write, closing(sounds):
            for samples in sounds:
                first = first or time.perf_counter()
                write(samples)
                n_samples += len(samples)
    if not args.quiet:
        times = (loaded - start, (first or loaded) - loaded, time.perf_counter() - loaded)
        _print_summary(args, seed, counted["pieces"], n_samples / bark.sample_rate, times)
    return 0


def _print_summary(
    args: argparse.Namespace, seed: int, n_pieces: int, seconds: float, times: tuple[float, float, float]
) -> None:
    """Print what was made, and how fast; on standard error if the sound goes to standard output."""
    out = sys.stderr if args.stream else sys.stdout
    print(f"{args.output or 'sound'}: {seconds:.2f} s of audio in {n_pieces} pieces, seed {seed}", file=out)
    loading, first, speaking = times
    print(f"  loading      {loading:8.2f} s", file=out)
    print(f"  first sound  {first:8.2f} s", file=out)
    print(f"  speaking     {speaking:8.2f} s", file=out)
    print(f"  real-time factor {real_time_factor(speaking, seconds):.2f} (work without loading / audio)", file=out)
