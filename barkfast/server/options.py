"""The options of `barkfast serve`, each of them also a variable BARKFAST_SERVE_*."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from barkfast.errors import InputError
from barkfast.server.settings import parse_duration

PREFIX = "BARKFAST_SERVE_"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them; the environment gives the defaults."""

    def add(name: str, default: Any = None, kind: Callable[[str], Any] = str, **options: Any) -> None:
        variable = PREFIX + name.upper().replace("-", "_")
        given = os.environ.get(variable)
        several = options.get("nargs") == "*"
        if given is not None:
            try:
                default = [kind(one) for one in given.split(",") if one] if several else kind(given)
            except ValueError as error:
                raise InputError(f"{variable} is {given!r}: {error}") from error
        options["help"] += f" ({variable})" if default in (None, []) else f" (default: {default}; {variable})"
        parser.add_argument(f"--{name}", default=default, type=kind, **options)

    def add_switch(name: str, text: str) -> None:
        variable = PREFIX + name.upper().replace("-", "_")
        on = os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
        parser.add_argument(f"--{name}", action="store_true", default=on, help=f"{text} ({variable}=1)")

    add("host", "127.0.0.1", help="address to listen at; 0.0.0.0 for all of the machine's")
    add("port", 8000, int, help="port to listen at")
    add("model", help="as of `barkfast say`; without one Suno's if it can be had, else the demo voice")
    add("voice", help="of requests that name none")
    add("dtype", "auto", help="of the networks")
    add("device", "auto", help="of the networks")
    add("slots", 8, int, help="requests that are generated in a batch")
    add("queue", 64, int, help="requests that may wait beyond those")
    add("max-input", 4096, int, help="characters of a text")
    add("mode", "low_latency", help="low_latency or exact, of requests that name none")
    add("api-key", [], nargs="*", metavar="KEY", help="keys of which one must be sent")
    add("served-model-name", [], nargs="*", metavar="NAME", help="names that the model goes by")
    add("voice-alias", [], nargs="*", metavar="NAME=VOICE", help="other names of voices")
    add_switch("allow-upload", "let clients upload and delete voices")
    add("idle-unload", kind=parse_duration, metavar="TIME", help="give the memory back after so long without a request")
    add("wyoming-port", kind=int, help="also speak Wyoming, of Home Assistant, at this port")
    add("root-path", "", help="where a proxy serves it")
    add("cors", [], nargs="*", metavar="ORIGIN", help="origins that browsers may call from")
    add("drain", 30.0, parse_duration, metavar="TIME", help="how long requests in progress have after a stop")
    add_switch("no-web", "no page at /")
