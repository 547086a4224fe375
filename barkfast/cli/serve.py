"""`barkfast serve`: an OpenAI-compatible speech server."""

import argparse
import asyncio
import logging
from importlib.util import find_spec
from typing import Any

from barkfast.cli.process import note
from barkfast.errors import InputError

# What the extra `serve` installs.
NEEDED = ("fastapi", "uvicorn", "prometheus_client")
LOCAL = ("127.0.0.1", "localhost", "::1")


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
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"barkfast serve needs {', '.join(missing)}; run: pip install 'barkfast[serve]'")
    from barkfast.server.process import EngineSettings
    from barkfast.server.run import open_socket, serve
    from barkfast.server.settings import Settings

    settings = Settings(
        served_names=tuple(args.served_model_name),
        voice=args.voice,
        voice_aliases=dict(map(_split_alias, args.voice_alias)),
        mode=args.mode,
        max_input=args.max_input,
        api_keys=tuple(args.api_key),
        allow_upload=args.allow_upload,
        cors=tuple(args.cors),
        root_path=args.root_path,
        drain_s=args.drain,
        web=not args.no_web,
    )
    engine = EngineSettings(args.model, args.device, args.dtype, args.slots, args.queue, args.idle_unload)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with open_socket(args.host, args.port) as listening:
        port = listening.getsockname()[1]
        if args.host not in LOCAL and not args.api_key:
            note(f"barkfast: everybody who reaches {args.host} may use this server; --api-key asks for a key")
        note(f"barkfast: listening at http://{args.host}:{port}, loading the model")
        asyncio.run(serve(settings, engine, listening, lambda about: _report(about, args.host, port)))
    return 0


def _split_alias(text: str) -> tuple[str, str]:
    name, separator, voice = text.partition("=")
    if not (name and separator and voice):
        raise InputError(f"--voice-alias is {text!r}; expected NAME=VOICE")
    return name, voice


def _report(about: Any, host: str, port: int) -> None:
    """What is served, and how to say hello."""
    note(f"barkfast: {about.model}, {about.engine} engine, {about.dtype}, {about.slots} slots, {len(about.voices)} voices")
    note(
        f"barkfast: curl http://{host}:{port}/v1/audio/speech --json "
        """'{"input": "Hello there.", "voice": "alloy"}' -o hello.mp3"""
    )
