"""Wyoming, the protocol of Home Assistant's voice assistants: describe, synthesize, streaming synthesize.

On the same engine as the HTTP routes (the extra `wyoming`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler, AsyncServer
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped

import barkfast
from barkfast.audio import to_pcm16
from barkfast.errors import BarkfastError
from barkfast.server.app import About
from barkfast.server.errors import ApiError
from barkfast.server.voices import VoiceTable, language_of

logger = logging.getLogger(__name__)

MADE_BY = Attribution(name="Suno", url="https://github.com/suno-ai/bark")
# Bytes of a 16-bit mono sample.
WIDTH = 2


def describe(about: About, voices: VoiceTable) -> Info:
    """What a client is told: one program with all voices, by language."""
    entries = [
        TtsVoice(
            name=name,
            attribution=MADE_BY,
            installed=True,
            description=name,
            version=None,
            languages=[language_of(voices.aliases.get(name, name)) or "en"],
        )
        for name in voices.names()
    ]
    program = TtsProgram(
        name="barkfast",
        attribution=MADE_BY,
        installed=True,
        description=f"Bark, {about.model}",
        version=barkfast.__version__,
        voices=entries,
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])


class Handler(AsyncEventHandler):
    """One connection."""

    def __init__(
        self,
        engine: Any,
        mode: str,
        about: Callable[[], About],
        voices: Callable[[], VoiceTable],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(reader, writer)
        self.engine, self.mode, self.about, self.voices = engine, mode, about, voices
        # Of a streamed text: the voice, and the pieces that came.
        self.voice: str | None = None
        self.pieces: list[str] | None = None

    async def handle_event(self, event: Event) -> bool:
        """Answer one event; whether the connection stays open."""
        try:
            if Describe.is_type(event.type):
                await self.write_event(describe(self.about(), self.voices()).event())
            elif SynthesizeStart.is_type(event.type):
                start = SynthesizeStart.from_event(event)
                self.voice, self.pieces = _name_of(start.voice), []
            elif SynthesizeChunk.is_type(event.type) and self.pieces is not None:
                self.pieces.append(SynthesizeChunk.from_event(event).text)
            elif SynthesizeStop.is_type(event.type) and self.pieces is not None:
                text, self.pieces = "".join(self.pieces), None
                await self.speak(text, self.voice)
                await self.write_event(SynthesizeStopped().event())
            elif Synthesize.is_type(event.type) and self.pieces is None:
                # Within a streamed text this is the same text once more, for servers that do not stream.
                asked = Synthesize.from_event(event)
                await self.speak(asked.text, _name_of(asked.voice))
        except (ApiError, BarkfastError) as error:
            await self.write_event(Error(text=str(error), code=getattr(error, "code", "engine_error")).event())
        return True

    async def speak(self, text: str, voice: str | None) -> None:
        """Speak a text; sound is sent while it is generated."""
        rate = self.engine.sample_rate
        await self.write_event(AudioStart(rate=rate, width=WIDTH, channels=1).event())
        if text.strip():
            async for samples in self._stream(text, self.voices().resolve(voice)):
                chunk = AudioChunk(rate=rate, width=WIDTH, channels=1, audio=to_pcm16(samples))
                await self.write_event(chunk.event())
        await self.write_event(AudioStop().event())

    async def _stream(self, text: str, voice: str | None) -> AsyncIterator[Any]:
        async with self.engine.stream(text, voice=voice, mode=self.mode, markup="markdown") as stream:
            async for samples in stream:
                yield samples


def _name_of(voice: Any) -> str | None:
    return None if voice is None else voice.name or voice.speaker


async def serve_wyoming(
    host: str, port: int, engine: Any, mode: str, about: Callable[[], About], voices: Callable[[], VoiceTable]
) -> None:
    """Serve until it is cancelled."""
    server = AsyncServer.from_uri(f"tcp://{host}:{port}")
    await server.run(lambda reader, writer: Handler(engine, mode, about, voices, reader, writer))
