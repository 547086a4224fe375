"""`python -m barkfast`: the command line of `python -m bark`, with correct exit status and switches."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from barkfast.audio import check_output, write_audio
from barkfast.cli.checks import check_option
from barkfast.cli.process import parse, report
from barkfast.errors import InputError
from barkfast.files import expand
from barkfast.text import check_text
from barkfast.voices import check_voice_output, load_voice, save_voice


def read_switch(value: str) -> bool:
    """Parse "True" or "False"; in the reference every word is true, even "False"."""
    if value.lower() in ("true", "1", "t", "yes"):
        return True
    if value.lower() in ("false", "0", "f", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{value!r} is neither True nor False")


def build_parser() -> argparse.ArgumentParser:
    """The reference's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m barkfast",
        description="The flags of `python -m bark`. The `barkfast` command has more.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    switch: dict[str, Any] = {
        "nargs": "?",
        "const": True,
        "default": False,
        "type": read_switch,
        "metavar": "True|False",
    }
    parser.add_argument("--text", required=True, help="text to be turned into audio")
    parser.add_argument("--output_filename", default="bark_generation.wav", help="output audio file name")
    parser.add_argument("--output_dir", default=".", help="directory to save the outputs")
    parser.add_argument("--history_prompt", help="a voice: its name, or the path of an .npz file")
    parser.add_argument("--text_temp", default=0.7, type=float, help="generation temperature (1.0 diverse, 0.0 greedy)")
    parser.add_argument("--waveform_temp", default=0.7, type=float, help="generation temperature of the waveform")
    parser.add_argument("--silent", help="disable progress bars", **switch)
    parser.add_argument("--output_full", help="also save the generation as an .npz history prompt", **switch)
    return parser


def run(args: argparse.Namespace) -> int:
    """Synthesize, and write a float32 wav as the reference does, or the format that the suffix names."""
    text = check_text(args.text)
    check_option("--text_temp", "text_temp", args.text_temp)
    check_option("--waveform_temp", "waveform_temp", args.waveform_temp)
    folder = expand(args.output_dir)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, args.output_filename)
    check_output(path)
    prompt_path = os.path.splitext(path)[0] + ".npz"
    if args.output_full:
        check_voice_output(prompt_path)
        if args.history_prompt and os.path.realpath(args.history_prompt) == os.path.realpath(prompt_path):
            raise InputError(
                f"--output_full would overwrite the history prompt {prompt_path}; name the output differently"
            )
    voice = args.history_prompt
    if voice is not None and voice.endswith(".npz"):
        voice = load_voice(voice)
    if voice == "":
        raise InputError("--history_prompt is empty; expected a name or the path of an .npz file")

    from barkfast.api import default_bark, generate_audio

    prompt, audio = generate_audio(text, voice, args.text_temp, args.waveform_temp, args.silent, output_full=True)
    write_audio(path, audio, default_bark().sample_rate, subtype="FLOAT" if path.lower().endswith(".wav") else None)
    if args.output_full:
        save_voice(prompt_path, prompt)
    print(f"Done! Output audio file is saved at: '{path}'")
    if args.output_full:
        print(f"The full generation is saved at: '{prompt_path}'")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for an error, 2 for usage, 130 for Ctrl-C."""
    args = parse(build_parser(), argv)
    return args if isinstance(args, int) else report("python -m barkfast", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
