"""`barkfast say`: speak a text into a file, a pipe or a player."""

import argparse
import secrets
import sys
import time
from dataclasses import replace
from typing import Any, get_args

from barkfast.audio import check_output
from barkfast.cli.checks import check_option, naming, read_text
from barkfast.cli.long import is_long, run_long
from barkfast.cli.models import choose_model
from barkfast.cli.options import add_model_options, read_sampling
from barkfast.errors import InputError
from barkfast.longform import trim_ends
from barkfast.normalize import MARKUPS
from barkfast.options import Mode
from barkfast.voices import check_voice_output, load_voice


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "say",
        help="speak a text into a file, a pipe or a player",
        description="Speak a text into a wav, flac, ogg or mp3 file. A text given here may have 256 tokens, about 13 "
        "seconds; --file, --script, --stream and --play take any length, sentence by sentence (docs/long-text.md).",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("text", nargs="?", help='what to say; "-" reads it from standard input')
    source.add_argument("--file", metavar="FILE", help='a text file to read aloud, a book, say; "-": standard input')
    source.add_argument("--script", metavar="FILE", help='a dialogue, of lines "NAME: text"; see --cast')
    parser.add_argument(
        "--markup",
        choices=MARKUPS,
        help="what the text is written in; markdown is read without its marks, addresses and code (default: markdown "
        "for a --file that ends in .md or .markdown)",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", metavar="FILE", help="audio file: .wav, .flac, .ogg or .mp3")
    target.add_argument("--stream", action="store_true", help="to standard output as it is made: 16-bit mono wav")
    target.add_argument("--play", action="store_true", help="to a player as it is made")
    parser.add_argument("--raw", action="store_true", help="--stream without a header: s16le, at the model's rate")
    parser.add_argument("--player", metavar="COMMAND", help="for --play (default: ffplay, aplay or play)")
    parser.add_argument(
        "--mode",
        choices=get_args(Mode),
        help="of --stream and --play: hand out every sentence while it is made, untrimmed; see docs/streaming.md "
        "(default: piece by piece)",
    )
    parser.add_argument("--voice", help="name (see `barkfast voices`) or path of an .npz file")
    parser.add_argument(
        "--cast", action="append", metavar="NAME=VOICE", help="the voice of a speaker in the --script; once for each"
    )
    parser.add_argument("--language", help="of a long text: en, de, ... (default: the voice's, else by the script)")
    parser.add_argument(
        "--chained", action="store_true", help="each piece of a long text goes on from the sound before it"
    )
    parser.add_argument(
        "--at-once", type=int, metavar="N", help="pieces of a long text side by side (default: 8, streamed 2)"
    )
    parser.add_argument(
        "--trim",
        action=argparse.BooleanOptionalAction,
        help="cut silence and noise off the ends (default: of the pieces of a long text)",
    )
    parser.add_argument("--seed", type=int, help="the same seed gives the same audio (default: drawn, and printed)")
    parser.add_argument("--text-temp", type=float, default=0.7, help="temperature of the semantic stage; 0 is greedy")
    parser.add_argument("--waveform-temp", type=float, default=0.7, help="temperature of the coarse stage")
    parser.add_argument("--fine-temp", type=float, default=0.5, help="temperature of the fine stage")
    parser.add_argument("--top-k", type=int, help="draw from the K likeliest tokens")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens that make up this probability")
    parser.add_argument(
        "--max-duration", type=float, metavar="SECONDS", help="end after this much speech, in each piece of a long text"
    )
    add_model_options(parser)
    parser.add_argument("--float", action="store_true", help="32-bit floating point samples (wav only)")
    parser.add_argument(
        "--overflow",
        choices=("cut", "error", "split"),
        default="cut",
        help="what to do with a text that is too long: cut it, refuse it, or say it in pieces",
    )
    parser.add_argument(
        "--watermark", action="store_true", help="mark the sound, unheard, so that `barkfast detect` finds it"
    )
    parser.add_argument("--save-voice", metavar="FILE.npz", help="also save what was said as a voice")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the arguments, then load the model, synthesize and save."""
    seed = secrets.randbits(31) if args.seed is None else args.seed
    for name in ("text_temp", "waveform_temp", "fine_temp", "top_k", "top_p", "watermark"):
        check_option(f"--{name.replace('_', '-')}", name, getattr(args, name))
    check_option("--max-duration", "max_duration_s", args.max_duration)
    check_option("--seed", "seed", seed)
    # A file can be read before the model is found; a name may be that of one of the model's voices.
    if args.voice == "":
        raise InputError("--voice is empty; expected a name or the path of an .npz file")
    args.voice = load_voice(args.voice) if args.voice and args.voice.endswith(".npz") else args.voice

    def bark_of() -> Any:
        from barkfast.bark import Bark

        model = choose_model(args.model, args.small)
        return Bark(model, device=args.device, dtype=args.dtype, engine=args.engine, small=args.small)

    return run_long(args, seed, bark_of) if is_long(args) else _run_short(args, seed, bark_of)


def _run_short(args: argparse.Namespace, seed: int, bark_of: Any) -> int:
    for option in ("cast", "language", "chained", "at_once", "raw", "player", "mode"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise InputError(f"--{name} goes with --file, --script, --stream, --play or --overflow split")
    text = read_text(args.text, args.markup)
    subtype = "FLOAT" if args.float else None
    check_output(args.output, subtype)
    if args.save_voice is not None:
        with naming("--save-voice"):
            check_voice_output(args.save_voice)
    bark = bark_of()
    voice = bark.load_voice(args.voice, ("semantic", "coarse", "fine"))
    start = time.perf_counter()
    bark.load()
    loading = time.perf_counter() - start
    generation = bark.generate(
        text,
        voice,
        seed=seed,
        overflow=args.overflow,
        # No progress bar in a log file.
        silent=args.quiet or not sys.stderr.isatty(),
        **read_sampling(args),
    )
    if args.trim:
        generation = replace(generation, audio=trim_ends(generation.audio, generation.sample_rate))
    generation.save(args.output, subtype=subtype)
    if args.save_voice is not None:
        bark.save_voice(args.save_voice, generation)
    if not args.quiet:
        _print_summary(args, generation, seed, loading)
    return 0


def _print_summary(args: argparse.Namespace, generation: Any, seed: int, loading: float) -> None:
    print(f"{args.output}: {generation.duration:.2f} s of audio, seed {seed}")
    if args.save_voice is not None:
        print(f"{args.save_voice}: the same as a voice")
    stages = {"loading": loading, **generation.timings}
    for stage, seconds in stages.items():
        print(f"  {stage:<9}{seconds:8.2f} s")
    print(f"  real-time factor {generation.real_time_factor:.2f} (work without loading / audio)")
