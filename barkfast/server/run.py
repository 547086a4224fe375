"""A server from its start to its end: the socket, the engine's process, signals, draining."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from barkfast.errors import BarkfastError, InputError
from barkfast.server.app import About, create_app
from barkfast.server.process import EngineProcess, EngineSettings
from barkfast.server.settings import Settings

logger = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    """uvicorn, whose signals are ours: it would close its sockets before what is in progress has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises: InputError where it cannot."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port or --host"
        ) from error


async def serve(
    settings: Settings, engine_settings: EngineSettings, listening: socket.socket, say: Callable[[About], None]
) -> None:
    """Serve until a SIGTERM or SIGINT, then let what is in progress end.

    Args:
        say: called once the model is loaded.

    Raises: those of loading the model.
    """
    engine = EngineProcess(engine_settings)

    def about() -> About | None:
        known = engine.about
        return About(**known | {"voices": tuple(known["voices"])}) if known else None

    app = create_app(engine, settings, about)
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=5, access_log=False)
    server = _Uvicorn(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    loading = asyncio.create_task(engine.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({loading, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            # Its error ends the server: nothing could be served.
            loading.result()
            known = about()
            assert known is not None
            say(known)
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                logger.info("stopping: no new requests; those in progress have %g s", settings.drain_s)
                if not await app.state.server.drain():
                    logger.warning("some requests had not ended after %g s and were cut off", settings.drain_s)
    finally:
        for task in (loading, stopping):
            task.cancel()
        await asyncio.gather(loading, stopping, return_exceptions=True)
        server.should_exit = True
        with contextlib.suppress(BarkfastError):
            await engine.close()
        await serving
