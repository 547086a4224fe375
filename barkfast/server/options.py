"""The options of `barkfast serve`, each of them also a variable of the environment."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from barkfast.server.settings import parse_duration

ENVIRONMENT = os.environ
ON = ("1", "true", "yes", "on")
# Options that may be given several times, and their variables, whose values are separated by commas.
LISTS = {
    "api_key": "BARKFAST_SERVE_API_KEY",
    "served_model_name": "BARKFAST_SERVE_SERVED_MODEL_NAME",
    "voice_alias": "BARKFAST_SERVE_VOICE_ALIAS",
    "cors": "BARKFAST_SERVE_CORS",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them."""

    def add(variable: str, default: Any, kind: Callable[[str], Any], text: str, metavar: str | None = None) -> None:
        # argparse reads a default that is a str as it reads an argument. The help must not show the environment's.
        shown = f"{text} (default: {default}; {variable})" if default is not None else f"{text} ({variable})"
        given = ENVIRONMENT.get(variable) or (None if default is None else str(default))
        parser.add_argument(_option_of(variable), default=given, type=kind, help=shown, metavar=metavar)

    def add_switch(variable: str, text: str) -> None:
        on = ENVIRONMENT.get(variable, "").lower() in ON
        parser.add_argument(_option_of(variable), action="store_true", default=on, help=f"{text} ({variable}=1)")

    def add_list(variable: str, text: str, metavar: str) -> None:
        how: dict[str, Any] = {"action": "extend", "nargs": "+", "metavar": metavar}
        parser.add_argument(_option_of(variable), help=f"{text} ({variable}, separated by commas)", **how)

    add("BARKFAST_SERVE_HOST", "127.0.0.1", str, "address to listen at; 0.0.0.0 for all of the machine's")
    add("BARKFAST_SERVE_PORT", 8000, int, "port to listen at; 0 for any that is free")
    add("BARKFAST_SERVE_MODEL", None, str, "as of `barkfast say`; without one Suno's as found, else the demo voice")
    add("BARKFAST_SERVE_VOICE", None, str, "of requests that name none")
    add("BARKFAST_SERVE_DTYPE", "auto", str, "of the networks")
    add("BARKFAST_SERVE_DEVICE", "auto", str, "of the networks")
    add("BARKFAST_SERVE_SLOTS", 8, int, "requests that are generated in a batch")
    add("BARKFAST_SERVE_QUEUE", 64, int, "requests that may wait beyond those")
    add("BARKFAST_SERVE_MAX_INPUT", 4096, int, "characters of a text")
    add("BARKFAST_SERVE_MODE", "low_latency", str, "low_latency or exact, of requests that name none")
    add_list(LISTS["api_key"], "keys of which one must be sent", "KEY")
    add_list(LISTS["served_model_name"], "names that the model goes by", "NAME")
    add_list(LISTS["voice_alias"], "other names of voices", "NAME=VOICE")
    add_switch("BARKFAST_SERVE_ALLOW_UPLOAD", "let clients upload and delete voices")
    add("BARKFAST_SERVE_UPLOAD_FOLDER", None, str, "where those are kept; `voices` in the cache folder without one")
    add("BARKFAST_SERVE_IDLE_UNLOAD", None, parse_duration, "free the memory after so long without a request", "TIME")
    add("BARKFAST_SERVE_WYOMING_PORT", None, int, "also speak Wyoming, of Home Assistant, at this port")
    add("BARKFAST_SERVE_ROOT_PATH", "", str, "where a proxy serves it")
    add_list(LISTS["cors"], "origins that browsers may call from; * for all", "ORIGIN")
    add("BARKFAST_SERVE_DRAIN", "30s", parse_duration, "how long requests in progress have after a stop", "TIME")
    add_switch("BARKFAST_SERVE_WATERMARK", "mark all sound, so that `barkfast detect` finds it")
    add_switch("BARKFAST_SERVE_LOG_TEXTS", "write the texts of requests into the log")
    add_switch("BARKFAST_SERVE_NO_WEB", "no page at /")
    add_switch("BARKFAST_SERVE_OPEN", "show the page in a browser once the model is loaded")


def read_list(args: argparse.Namespace, name: str) -> tuple[str, ...]:
    """An option that may be given several times: from the command line, else from the environment."""
    given = getattr(args, name)
    if given is None:
        given = [one.strip() for one in ENVIRONMENT.get(LISTS[name], "").split(",")]
    return tuple(one for one in given if one)


def _option_of(variable: str) -> str:
    return "--" + variable.split("_", 2)[2].lower().replace("_", "-")
