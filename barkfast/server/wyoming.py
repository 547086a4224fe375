"""Wyoming, the protocol of Home Assistant's voice assistants: describe, synthesize, streaming synthesize.

On the same engine as the HTTP routes (the extra `wyoming`). It knows no keys: whoever reaches the port may use it.
"""

import asyncio
import contextlib
import socket
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped

import barkfast
from barkfast.audio import to_pcm16
from barkfast.longform.sentences import split_sentences
from barkfast.server.app import Server
from barkfast.server.errors import ApiError, from_engine
from barkfast.server.metrics import Clock
from barkfast.server.speech import Asked, check_text

MADE_BY = Attribution(name="Suno", url="https://github.com/suno-ai/bark")
# Bytes of a 16-bit mono sample.
WIDTH = 2


def describe(server: Server) -> Info:
    """What a client is told: one program with all voices, by language. Raises: ApiError 503 while it loads."""
    voices = server.voices()
    entries = [
        TtsVoice(
            name=name,
            attribution=MADE_BY,
            installed=True,
            description=name,
            version=None,
            languages=[voices.language_of(name) or "en"],
        )
        for name in voices.names()
    ]
    program = TtsProgram(
        name="barkfast",
        attribution=MADE_BY,
        installed=True,
        description=f"Bark, {server.about.model}",
        version=barkfast.__version__,
        voices=entries,
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])


class Handler(AsyncEventHandler):
    """One connection."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.server = server
        # Of a streamed text: what speaks it, and where its sentences go, None at the end.
        self._speaking: asyncio.Task[None] | None = None
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue()
        self._text, self._n_characters = "", 0

    async def handle_event(self, event: Event) -> bool:
        """Answer one event; whether the connection stays open."""
        streaming = self._speaking is not None
        try:
            if Describe.is_type(event.type):
                await self.write_event(describe(self.server).event())
            elif SynthesizeStart.is_type(event.type) and not streaming:
                self._start(_name_of(SynthesizeStart.from_event(event).voice))
            elif SynthesizeChunk.is_type(event.type) and streaming:
                self._take(SynthesizeChunk.from_event(event).text)
            elif SynthesizeStop.is_type(event.type) and self._speaking is not None:
                self._sentences.put_nowait(self._text)
                self._sentences.put_nowait(None)
                speaking, self._speaking = self._speaking, None
                await speaking
            elif Synthesize.is_type(event.type) and not streaming:
                # Within a streamed text this is the same text once more, for servers that do not stream.
                asked = Synthesize.from_event(event)
                await self._run(_name_of(asked.voice), _queue_of(asked.text))
        except ApiError as error:
            await self.write_event(Error(text=str(error), code=error.code).event())
        return True

    async def disconnect(self) -> None:
        """The client has left: end what it waits for."""
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.gather(self._speaking, return_exceptions=True)

    def _start(self, voice: str | None) -> None:
        self._sentences, self._text, self._n_characters = asyncio.Queue(), "", 0
        self._speaking = asyncio.create_task(self._run_streamed(voice, self._sentences))

    def _take(self, text: str) -> None:
        """Pass on the sentences that are complete: all but the last one."""
        most = self.server.settings.max_input
        self._n_characters += len(text)
        if self._n_characters > most:
            raise ApiError(400, f"the text has more than {most} characters, which this server takes", "input_too_long")
        self._text += text
        complete = [sentence.text for sentence in split_sentences(self._text)] if self._text.strip() else []
        if len(complete) > 1:
            self._sentences.put_nowait(" ".join(complete[:-1]))
            self._text = complete[-1]

    async def _run_streamed(self, voice: str | None, sentences: "asyncio.Queue[str | None]") -> None:
        try:
            await self._run(voice, sentences)
        except ApiError as error:
            await self.write_event(Error(text=str(error), code=error.code).event())
        finally:
            with contextlib.suppress(ConnectionError):
                await self.write_event(SynthesizeStopped().event())

    async def _run(self, voice: str | None, texts: "asyncio.Queue[str | None]") -> None:
        """Speak texts one after the other as one sound. Raises: ApiError."""
        rate = self.server.engine.sample_rate
        own = self.server.voices().resolve(voice)
        await self.write_event(AudioStart(rate=rate, width=WIDTH, channels=1).event())
        try:
            first = True
            while (text := await texts.get()) is not None:
                # A model's answer may have a line of nothing but signs.
                if any(map(str.isalnum, text)):
                    await self._speak(text, own, rate, wait=not first)
                    first = False
        finally:
            with contextlib.suppress(ConnectionError):
                await self.write_event(AudioStop().event())

    async def _speak(self, text: str, voice: str | None, rate: int, wait: bool) -> None:
        settings = self.server.settings
        options = {"mode": settings.mode, "markup": "markdown", "wait": wait}
        asked = Asked(check_text(text, settings.max_input), voice, "pcm", options=options)
        speech = await self.server.speaker.open(asked, Clock())
        outcome, why = "cancelled", None
        try:
            async for samples in speech.samples():
                chunk = AudioChunk(rate=rate, width=WIDTH, channels=1, audio=to_pcm16(samples))
                await self.write_event(chunk.event())
            outcome = "done"
        except ConnectionError:
            raise
        except Exception as error:
            # Of any kind: the client is told.
            outcome, why = "failed", error
            raise from_engine(error, 1.0) from error
        finally:
            await speech.end(outcome, why)


def _queue_of(text: str) -> "asyncio.Queue[str | None]":
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    queue.put_nowait(text)
    queue.put_nowait(None)
    return queue


def _name_of(voice: Any) -> str | None:
    return None if voice is None else voice.name or voice.speaker


async def serve_wyoming(listening: socket.socket, server: Server) -> None:
    """Serve until it is cancelled."""

    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await Handler(server, reader, writer).run()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(handle(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    serving = await asyncio.start_server(accept, sock=listening)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        serving.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
