"""`barkfast serve`: an OpenAI-compatible speech server."""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from barkfast.cache import cache_folder
from barkfast.cli.models import choose_model
from barkfast.cli.process import note
from barkfast.errors import InputError
from barkfast.files import expand

# What the extras install.
NEEDED = {"serve": ("fastapi", "uvicorn", "prometheus_client"), "wyoming": ("wyoming",)}
LOCAL = ("127.0.0.1", "localhost", "::1")
ALL = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
LOG = "%(asctime)s %(levelname)s %(name)s %(message)s"


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    from barkfast.server.options import add_options

    parser = commands.add_parser(
        "serve",
        help="a speech server for every client of OpenAI's route",
        description="Serve POST /v1/audio/speech and what its clients ask besides. Without a model that can be had the "
        "demo voice is served. Every option is also a variable of the environment.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until it is stopped; errors of the options before anything is loaded."""
    _check_extra("serve")
    if args.wyoming_port is not None:
        _check_extra("wyoming")
    from barkfast.server.options import read_list
    from barkfast.server.process import EngineSettings
    from barkfast.server.run import open_socket, serve
    from barkfast.server.settings import Settings

    settings = Settings(
        served_names=read_list(args, "served_model_name"),
        voice=args.voice,
        voice_aliases=dict(map(_split_alias, read_list(args, "voice_alias"))),
        mode=args.mode,
        max_input=args.max_input,
        api_keys=read_list(args, "api_key"),
        uploads=_upload_folder(args),
        cors=read_list(args, "cors"),
        root_path=args.root_path,
        drain_s=args.drain,
        web=not args.no_web,
        log_texts=args.log_texts,
        watermark=args.watermark,
    )
    engine = EngineSettings(args.model, args.device, args.dtype, args.slots, args.queue, args.idle_unload)
    logging.basicConfig(level=logging.INFO, format=LOG)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if args.open and args.no_web:
        raise InputError("--open shows the page that --no-web leaves out; give one of them")
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(open_socket(args.host, args.port))
        wyoming = None
        if args.wyoming_port is not None:
            wyoming = sockets.enter_context(open_socket(args.host, args.wyoming_port))
        if args.host not in LOCAL and not settings.api_keys:
            note(f"barkfast: warning: whoever reaches {args.host} may use this server; --api-key asks for a key")
        model = choose_model(args.model, False)
        address = f"http://{ALL.get(args.host, args.host)}:{listening.getsockname()[1]}"
        note(f"barkfast: listening at {address}, loading the model")

        def report(about: Any) -> None:
            _report(about, address, bool(settings.api_keys))
            if wyoming is not None:
                note(f"barkfast: Wyoming at port {wyoming.getsockname()[1]}")
            if args.open and not webbrowser.open(address + "/"):
                note(f"barkfast: no browser was found; the page is at {address}/")

        asyncio.run(serve(settings, dataclasses.replace(engine, model=model), listening, report, wyoming))
    return 0


def _check_extra(extra: str) -> None:
    missing = [name for name in NEEDED[extra] if find_spec(name) is None]
    if missing:
        raise InputError(f"this needs {', '.join(missing)}; run: pip install 'barkfast[{extra}]'")


def _upload_folder(args: argparse.Namespace) -> Path | None:
    if not args.allow_upload:
        return None
    if args.upload_folder:
        return expand(args.upload_folder)
    cache = cache_folder()
    if cache is None:
        raise InputError("--allow-upload has no cache folder to keep voices in; name one with --upload-folder")
    return cache / "voices"


def _split_alias(text: str) -> tuple[str, str]:
    name, separator, voice = text.partition("=")
    if not (name and separator and voice):
        raise InputError(f"--voice-alias is {text!r}; expected NAME=VOICE")
    return name, voice


def _report(about: Any, address: str, key: bool) -> None:
    """What is served, and how to say hello."""
    voices = f"{len(about.voices)} voice{'s' if len(about.voices) != 1 else ''}"
    note(f"barkfast: {about.model}, {about.engine} engine, {about.dtype}, {about.slots} slots, {voices}")
    authorization = ' -H "Authorization: Bearer KEY"' if key else ""
    body = """'{"input": "Hello there.", "voice": "alloy"}'"""
    note(f"barkfast: ready; say hello: curl {address}/v1/audio/speech --json {body}{authorization} -o hello.mp3")
