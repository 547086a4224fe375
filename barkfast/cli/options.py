"""Options that several sub-commands share."""

import argparse
from typing import Any

MODELS = "demo, suno/bark, suno/bark-small, a hub id, a folder, or random:small for random weights"


def add_model_options(parser: argparse.ArgumentParser, *, one: bool = True) -> None:
    """Add the options for the model and where it runs.

    Args:
        one: whether the command takes a single dtype and engine; False if it takes several.
    """
    parser.add_argument("--model", help=f"{MODELS} (default: Suno's, as found)")
    parser.add_argument("--small", action="store_true", help="the small networks, where the model has both sizes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    if one:
        parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16, int8 or int4")
        parser.add_argument("--engine", default="auto", help="auto, or one that `barkfast info` lists")


def read_sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `say` for each utterance, as arguments of `Bark.request`."""
    names = ("text_temp", "waveform_temp", "fine_temp", "top_k", "top_p", "watermark")
    return {name: getattr(args, name) for name in names} | {"max_duration_s": args.max_duration}
