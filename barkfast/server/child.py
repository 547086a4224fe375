"""The engine's process: `python -m barkfast.server.child FD` serves the requests that come through a socket.

It holds the networks. It ends when the socket does, so it never outlives the server.
"""

import asyncio
import dataclasses
import signal
import socket
import sys
from typing import Any

import numpy as np

from barkfast import Bark, Engine
from barkfast.bench.machine import free_memory
from barkfast.engine.stream import Stream
from barkfast.server import frames
from barkfast.server.frames import Message

# Seconds between two reports of the engine's numbers, which are the heartbeat too.
REPORT_S = 0.2


class Child:
    """One engine behind a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.tasks: dict[int, asyncio.Task[None]] = {}
        # Chunks of each stream that may be sent before its consumer reads.
        self.credit: dict[int, asyncio.Semaphore] = {}
        self.engine: Engine | None = None

    async def send(self, message: Message, data: bytes = b"") -> None:
        """Send a message; waits while the other side does not read."""
        self.writer.write(frames.pack(message, data))
        await self.writer.drain()

    async def run(self) -> None:
        """Load, then serve until the socket ends."""
        settings, _ = await frames.read(self.reader)
        try:
            bark, about = await asyncio.to_thread(open_model, settings)
            # Before anything is loaded: the server may refuse it, and close the connection.
            await self.send({"event": "about", "about": about})
            self.engine = Engine(bark, n_slots=settings["slots"], queue_size=settings["queue"])
            await self.engine.start()
        except Exception as error:
            await self.send({"event": "failed", "error": frames.pack_error(error)})
            return
        await self.send({"event": "ready"})
        reporting = asyncio.create_task(self.report(bark.components.device))
        try:
            while True:
                message, _ = await frames.read(self.reader)
                self.take(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            reporting.cancel()
            for task in list(self.tasks.values()):
                task.cancel()
            await self.engine.close()

    async def report(self, device: str) -> None:
        """Send the engine's numbers again and again."""
        assert self.engine is not None
        while True:
            state: Message = {"healthy": self.engine.healthy, "accepting": self.engine.accepting}
            state |= {"stats": dataclasses.asdict(self.engine.stats()), "free_bytes": free_memory(device)}
            await self.send({"event": "state", **state})
            await asyncio.sleep(REPORT_S)

    def take(self, message: Message) -> None:
        """Begin what a message asks for."""
        number, what = message["id"], message["op"]
        if what == "read":
            if number in self.credit:
                self.credit[number].release()
        elif what == "cancel":
            if number in self.tasks:
                self.tasks[number].cancel()
        else:
            work = {"stream": self.stream, "generate": self.generate, "drain": self.drain}[what]
            self.tasks[number] = asyncio.create_task(self.guard(number, work, message))

    async def guard(self, number: int, work: Any, message: Message) -> None:
        """Run a request, and send how it ended, once."""
        try:
            end, data = await work(number, message)
        except asyncio.CancelledError:
            end, data = {"end": "cancelled"}, b""
        except Exception as error:
            end, data = {"end": "error", "error": frames.pack_error(error)}, b""
        finally:
            self.tasks.pop(number, None)
            self.credit.pop(number, None)
        await self.send({"id": number, **end}, data)

    async def stream(self, number: int, message: Message) -> tuple[Message, bytes]:
        """Speak a text; its chunks are sent as far as they are read."""
        assert self.engine is not None
        self.credit[number] = credit = asyncio.Semaphore(message["credit"])
        stream: Stream = self.engine.stream(message["text"], **message["options"])
        async with stream:
            await self.send({"id": number, "opened": True})
            n_told = 0
            async for samples in stream:
                await credit.acquire()
                begun = [dataclasses.asdict(sentence) for sentence in stream.sentences[n_told:]]
                n_told += len(begun)
                told = {"id": number, "sentences": begun, "queue_wait_s": stream.queue_wait_s}
                told["timings"] = stream.timings
                await self.send(told, np.ascontiguousarray(samples, "<f4").tobytes())
        # At the end, since nobody needs it before: the first sentence as a voice.
        described, data = frames.pack_arrays(stream.voice or {})
        return {"end": "done", "timings": stream.timings, "voice": described}, data

    async def generate(self, number: int, message: Message) -> tuple[Message, bytes]:
        """Speak a text; its tokens and samples at the end."""
        assert self.engine is not None
        made = await self.engine.generate(message["text"], **message["options"])
        described, data = frames.pack_arrays(
            {name: getattr(made, name) for name in ("audio", "semantic", "coarse", "fine")}
        )
        rest = {name: getattr(made, name) for name in ("sample_rate", "timings", "engines", "fallbacks")}
        return {"end": "done", "arrays": described, "rest": rest}, data

    async def drain(self, number: int, message: Message) -> tuple[Message, bytes]:
        """Accept nothing more, and wait for what was accepted."""
        assert self.engine is not None
        return {"end": "done", "empty": await self.engine.drain(message["timeout_s"])}, b""


def open_model(settings: Message) -> tuple[Bark, Message]:
    """The model, its networks not loaded yet, and what there is to say about it."""
    from barkfast.runtime.select import resolve_dtype, resolve_engine
    from barkfast.voices import find_voices

    bark = Bark(settings["model"], device=settings["device"], dtype=settings["dtype"])
    device = bark.components.device
    engine = resolve_engine(bark.components.engine, device)
    about = {
        "model": bark.checkpoint.name,
        "voices": sorted(find_voices(bark.checkpoint)),
        "engine": engine,
        "dtype": resolve_dtype(bark.components.dtype, device, engine),
        "slots": settings["slots"],
        "layout": dataclasses.asdict(bark.layout),
    }
    return bark, about


async def serve(connection: socket.socket) -> None:
    """Serve one server."""
    reader, writer = await asyncio.open_connection(sock=connection)
    await Child(reader, writer).run()
    writer.close()


def main() -> None:
    """Serve the socket whose file descriptor is the argument."""
    # Ctrl-C and a stop are for the server, which ends this process by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
