"""`barkfast say`: speak a text into a file."""

import argparse
import secrets
import sys
import time
from typing import Any

from barkfast.audio import check_output
from barkfast.cli.checks import check_duration, check_sampling, check_seed, naming, read_text
from barkfast.cli.options import add_model_options
from barkfast.errors import InputError
from barkfast.voices import check_voice_output, load_voice


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "say",
        help="speak a text into a file",
        description="Speak a text, up to 256 tokens or about 13 seconds, into a wav, flac, ogg or mp3 file.",
    )
    parser.add_argument("text", help='what to say; "-" reads it from standard input')
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="audio file: .wav, .flac, .ogg or .mp3")
    parser.add_argument("--voice", help="name (see `barkfast voices`) or path of an .npz file")
    parser.add_argument("--seed", type=int, help="the same seed gives the same audio (default: drawn, and printed)")
    parser.add_argument("--text-temp", type=float, default=0.7, help="temperature of the semantic stage; 0 is greedy")
    parser.add_argument("--waveform-temp", type=float, default=0.7, help="temperature of the coarse stage")
    parser.add_argument("--fine-temp", type=float, default=0.5, help="temperature of the fine stage")
    parser.add_argument("--top-k", type=int, help="draw from the K likeliest tokens")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens that make up this probability")
    parser.add_argument("--max-duration", type=float, metavar="SECONDS", help="end after this much speech")
    add_model_options(parser)
    parser.add_argument("--float", action="store_true", help="32-bit floating point samples (wav only)")
    parser.add_argument(
        "--overflow", choices=("cut", "error"), default="cut", help="what to do with a text that is too long"
    )
    parser.add_argument("--save-voice", metavar="FILE.npz", help="also save what was said as a voice")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check what can be checked, then load the model, speak and save."""
    text = read_text(args.text)
    subtype = "FLOAT" if args.float else None
    check_output(args.output, subtype)
    if args.save_voice is not None:
        with naming("--save-voice"):
            check_voice_output(args.save_voice)
    check_sampling("--text-temp", args.text_temp)
    check_sampling("--waveform-temp", args.waveform_temp)
    check_sampling("--fine-temp", args.fine_temp)
    check_sampling("--top-k", 1.0, top_k=args.top_k)
    check_sampling("--top-p", 1.0, top_p=args.top_p)
    if args.max_duration is not None:
        check_duration(args.max_duration)
    seed = secrets.randbits(31) if args.seed is None else args.seed
    check_seed(seed)
    # A file can be read before a model is even looked for; a name may stand for a voice of the model.
    voice = load_voice(args.voice) if args.voice and args.voice.endswith(".npz") else args.voice
    if voice == "":
        raise InputError("--voice is empty; expected a name or the path of an .npz file")

    from barkfast.bark import Bark

    bark = Bark(args.model, device=args.device, dtype=args.dtype, engine=args.engine, small=args.small)
    voice = bark.load_voice(voice, ("semantic", "coarse", "fine"))
    start = time.perf_counter()
    bark.load()
    loading = time.perf_counter() - start
    generation = bark.generate(
        text,
        voice,
        seed=seed,
        text_temp=args.text_temp,
        waveform_temp=args.waveform_temp,
        fine_temp=args.fine_temp,
        top_k=args.top_k,
        top_p=args.top_p,
        max_duration_s=args.max_duration,
        overflow=args.overflow,
        # A progress bar in a log file helps nobody.
        silent=args.quiet or not sys.stderr.isatty(),
    )
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
