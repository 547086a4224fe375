"""A server from its start to its end: the sockets, the engine's process, signals, draining."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from barkfast.errors import BarkfastError, InputError
from barkfast.server.app import create_app
from barkfast.server.process import EngineProcess, EngineSettings
from barkfast.server.settings import About, Settings
from barkfast.server.voices import make_table

logger = logging.getLogger(__name__)

# Seconds that connections have to close once their requests have ended.
CLOSE_S = 5


class _Uvicorn(uvicorn.Server):
    """uvicorn, whose signals are ours: it would close its sockets before what is in progress has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises: InputError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host}:{port}: {why}; choose another --port or --host") from error


async def serve(
    settings: Settings,
    engine_settings: EngineSettings,
    listening: socket.socket,
    say: Callable[[About], None],
    wyoming: socket.socket | None = None,
) -> None:
    """Serve until a SIGTERM or SIGINT, then let what is in progress end.

    Args:
        say: called once the model is loaded.
        wyoming: a socket at which Wyoming is spoken.

    Raises: those of loading the model.
    """

    def check(about: About) -> object:
        return make_table(about.voices, settings.voice_aliases, settings.voice)

    engine = EngineProcess(engine_settings, check)
    app = create_app(engine, settings, lambda: engine.about)
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=CLOSE_S, access_log=False)
    server = _Uvicorn(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = [asyncio.create_task(server.serve(sockets=[listening]))]
    if wyoming is not None:
        from barkfast.server.wyoming import serve_wyoming

        serving.append(asyncio.create_task(serve_wyoming(wyoming, app.state.server)))
    loading = asyncio.create_task(engine.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({loading, stopping, *serving}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            # Its error ends the server: nothing could be served.
            loading.result()
            assert engine.about is not None
            say(engine.about)
            await asyncio.wait({stopping, *serving}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            logger.info("stopping: no new requests; those in progress have %g s", settings.drain_s)
            if not await app.state.server.drain():
                logger.warning("some requests had not ended after %g s and were cut off", settings.drain_s)
    finally:
        for task in (loading, stopping, *serving[1:]):
            task.cancel()
        await asyncio.gather(loading, stopping, *serving[1:], return_exceptions=True)
        server.should_exit = True
        with contextlib.suppress(BarkfastError):
            await engine.close()
        await serving[0]
