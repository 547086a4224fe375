"""A gRPC server that streams 16-bit samples; requests are JSON, so that no code has to be generated.

    pip install barkfast grpcio
    python examples/grpc_server.py --model suno/bark-small --port 50051

The method is /barkfast.Speech/Speak: one message in, {"text": ..., "voice": ..., "seed": ..., "mode": ...}; a stream
of messages out, each some samples as little-endian 16-bit integers. A client's deadline becomes the request's, and a
client that cancels also cancels its request. A service with its own .proto replaces the two functions that convert
bytes to messages and back.
"""

import argparse
import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from barkfast import Bark, BarkfastError, Engine, InputError
from barkfast.audio import to_pcm16
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineDead, QueueFull

DRAIN_S = 30.0
# So that one long text does not delay other requests for minutes.
MOST_CHARACTERS = 4096
SERVICE, METHOD = "barkfast.Speech", "Speak"
KNOWN = ("text", "voice", "seed", "mode", "priority", "max_duration_s")


def status_of(error: BarkfastError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    if isinstance(error, InputError):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, DeadlineExceeded):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, QueueFull):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    closed = isinstance(error, EngineClosed | EngineDead)
    return grpc.StatusCode.UNAVAILABLE if closed else grpc.StatusCode.INTERNAL


class Servicer:
    """Serves speech from an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def speak(self, asked: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        """Stream the samples of a text as they are ready."""
        if not isinstance(asked, dict) or not {"text"} <= set(asked) <= set(KNOWN):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected a JSON object with some of {KNOWN}")
        if len(str(asked["text"])) > MOST_CHARACTERS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected at most {MOST_CHARACTERS} characters")
        try:
            async with self.engine.stream(deadline_s=context.time_remaining(), **asked) as stream:
                async for chunk in stream:
                    yield to_pcm16(chunk)
        except BarkfastError as error:
            await context.abort(status_of(error), str(error))

    def handler(self) -> grpc.GenericRpcHandler:
        """For `server.add_generic_rpc_handlers`."""
        speak = grpc.unary_stream_rpc_method_handler(
            self.speak, request_deserializer=json.loads, response_serializer=bytes
        )
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: speak})


async def serve(model: str, port: int, stop: asyncio.Event, started: "asyncio.Future[int] | None" = None) -> None:
    """Serve until `stop` is set, then finish the running requests; `started` gets the port."""
    async with Engine(Bark(model)) as engine:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Servicer(engine).handler(),))
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        if started is not None:
            started.set_result(port)
        await stop.wait()
        # No new calls from here on.
        await asyncio.gather(server.stop(DRAIN_S), engine.drain(DRAIN_S))


async def main() -> None:
    """Serve from the command line, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="as of barkfast.Bark")
    parser.add_argument("--port", type=int, default=50051)
    options = parser.parse_args()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await serve(options.model, options.port, stop)


if __name__ == "__main__":
    asyncio.run(main())
