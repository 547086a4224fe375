"""Speech as an HTTP response: bytes of a format, or server-sent events, while the sound is generated."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from barkfast.server.encoders import Encoder
from barkfast.server.errors import from_engine
from barkfast.server.progress import LOOK_S, Progress
from barkfast.server.speaking import Speech
from barkfast.server.stretch import Stretch

logger = logging.getLogger(__name__)

# Seconds between comments that keep an event stream alive.
KEEP_ALIVE_S = 10.0
# Seconds for which a client may read nothing while there is something to read.
STALL_S = 300.0


class SpeechResponse(Response):
    """Sends the headers at once, then sound as it comes. It ends the request, however that happens.

    A client that leaves is noticed while it waits. A request that fails is cut off, never ended as if all had been
    sent; as events there is one with the error before.
    """

    def __init__(self, speech: Speech, encoder: Encoder, sample_rate: int, headers: dict[str, str]) -> None:
        self.speech, self.encoder = speech, encoder
        self.stretch = Stretch(sample_rate, speech.asked.speed)
        self.status_code, self.background, self.body = 200, None, b""
        self.media_type = "text/event-stream" if speech.asked.events else encoder.media_type
        # Given as a header, since Starlette adds a charset to a media type of text.
        self.init_headers(headers | {"content-type": self.media_type})

    def init_headers(self, headers: Any = None) -> None:
        """The headers as they are: the length is not known."""
        self.raw_headers = [
            (name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_wait_for_disconnect(receive))
        outcome, error = "cancelled", None
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                outcome, error = _outcome_of(sending)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self.speech.end(outcome, error)
        # Returning before the last body message closes the connection.

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._events() if self.speech.asked.events else self._encoded()) as pieces:
            async for piece in pieces:
                await _within(STALL_S, send({"type": "http.response.body", "body": piece, "more_body": True}))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _encoded(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the sound, none of them empty."""
        async for samples in self.speech.samples():
            stretched = self.stretch.push(samples)
            if len(stretched) and (data := await asyncio.to_thread(self.encoder.encode, stretched)):
                yield data
        if data := await asyncio.to_thread(self._last):
            yield data

    def _last(self) -> bytes:
        rest = self.stretch.finish()
        return (self.encoder.encode(rest) if len(rest) else b"") + self.encoder.finish()

    async def _events(self) -> AsyncGenerator[bytes, None]:
        """The same as events, with comments while there is none."""
        source, n_told, quiet_s = self._encoded(), 0, 0.0
        progress = Progress(self.speech) if self.speech.asked.progress else None
        look_s = LOOK_S if progress else KEEP_ALIVE_S
        coming: asyncio.Task[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(source))
                done, _ = await asyncio.wait({coming}, timeout=look_s)
                for content in progress.look() if progress else ():
                    yield _event(content)
                if not done:
                    quiet_s += look_s
                    if quiet_s >= KEEP_ALIVE_S:
                        quiet_s = 0.0
                        yield b": keep-alive\n\n"
                    continue
                quiet_s = 0.0
                task, coming = coming, None
                try:
                    data = task.result()
                except StopAsyncIteration:
                    break
                for event in self._sentences(n_told):
                    n_told += 1
                    yield event
                yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
            for event in self._sentences(n_told):
                yield event
            for content in progress.finish() if progress else ():
                yield _event(content)
            yield _event({"type": "speech.audio.done", "usage": self.speech.usage})
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            # Of any kind: whatever ended the sound, the client is told before the connection is cut.
            yield _event({"type": "error", **from_engine(error, 1.0).body()})
            raise
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            await source.aclose()

    def _sentences(self, n_told: int) -> list[bytes]:
        """Events for the sentences from number `n_told` on, if they were asked for."""
        if not self.speech.asked.timestamps:
            return []
        speed = self.speech.asked.speed
        return [
            _event({"type": "speech.sentence", "text": s.text, "start_s": round(s.start_s / speed, 3)})
            for s in self.speech.sentences[n_told:]
        ]


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def _outcome_of(sending: "asyncio.Future[None]") -> tuple[str, BaseException | None]:
    if sending.cancelled():
        return "cancelled", None
    error = sending.exception()
    if error is None:
        return "done", None
    if isinstance(error, asyncio.TimeoutError | OSError):
        # It reads nothing, or its connection is gone.
        return "cancelled", error
    logger.warning(
        "a request failed after its headers were sent: %s", error, exc_info=from_engine(error, 1).status == 500
    )
    return "failed", error


async def _within(seconds: float, work: Awaitable[None]) -> None:
    """Await with a limit. Not by asyncio.wait_for, which before Python 3.12 may lose a cancellation.

    Raises: TimeoutError of asyncio.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise asyncio.TimeoutError
        task.result()
    finally:
        task.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
