"""Home Assistant's protocol, with its own client."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("wyoming", reason="wyoming is not installed (the extra `wyoming`)")

from wyoming.audio import AudioChunk, AudioStart, AudioStop  # noqa: E402
from wyoming.client import AsyncTcpClient  # noqa: E402
from wyoming.error import Error  # noqa: E402
from wyoming.info import Describe, Info  # noqa: E402
from wyoming.tts import (  # noqa: E402
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from barkfast.server.run import open_socket  # noqa: E402
from barkfast.server.wyoming import serve_wyoming  # noqa: E402
from server.running import Running  # noqa: E402


@pytest.fixture(scope="module")
def port(demo: Running) -> Iterator[int]:
    """Wyoming on the engine of the HTTP server, in its event loop."""
    listening = open_socket("127.0.0.1", 0)

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(serve_wyoming(listening, demo.app.state.server))

    async def end(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    serving = asyncio.run_coroutine_threadsafe(start(), demo.loop).result(30)
    yield listening.getsockname()[1]
    asyncio.run_coroutine_threadsafe(end(serving), demo.loop).result(30)


def talk(port: int, *events: Any, last: type = AudioStop) -> list[Any]:
    """Send events; what comes back up to the one of the kind `last`."""

    async def run() -> list[Any]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            for event in events:
                await client.write_event(event.event())
            answers = []
            while True:
                answer = await asyncio.wait_for(client.read_event(), 120)
                assert answer is not None
                answers.append(answer)
                if last.is_type(answer.type):
                    return answers

    return asyncio.run(run())


def sound_of(answers: list[Any]) -> bytes:
    kinds = [answer.type for answer in answers if not SynthesizeStopped.is_type(answer.type)]
    assert kinds[0] == "audio-start" and kinds[-1] == "audio-stop" and set(kinds[1:-1]) == {"audio-chunk"}
    start = AudioStart.from_event(answers[0])
    assert (start.rate, start.width, start.channels) == (24_000, 2, 1)
    return b"".join(AudioChunk.from_event(a).audio for a in answers if AudioChunk.is_type(a.type))


def test_it_describes_its_voices_by_language(port: int):
    (program,) = Info.from_event(talk(port, Describe(), last=Info)[0]).tts
    assert program.supports_synthesize_streaming and program.installed
    assert {"calm", "alloy", "default"} <= {voice.name for voice in program.voices}
    assert all(voice.languages == ["en"] for voice in program.voices)


def test_it_speaks(port: int, demo: Running):
    demo.wait_idle()
    done = demo.counts().get("done", 0)
    sound = sound_of(talk(port, Synthesize("Yes.", SynthesizeVoice(name="calm"))))
    assert len(sound) > 2 * 4800
    assert demo.counts()["done"] == done + 1


def test_a_streamed_text_is_spoken_before_it_ends(port: int):
    async def run() -> tuple[list[str], bytes]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(SynthesizeStart(voice=SynthesizeVoice(name="calm")).event())
            for text in ("One app", "le. ", "Two pears. ", "And "):
                await client.write_event(SynthesizeChunk(text).event())
            first = [await asyncio.wait_for(client.read_event(), 120) for _ in range(2)]
            # As servers that do not stream need it.
            await client.write_event(SynthesizeChunk("more.").event())
            await client.write_event(Synthesize("One apple. Two pears. And more.").event())
            await client.write_event(SynthesizeStop().event())
            answers = [*first]
            while not SynthesizeStopped.is_type(answers[-1].type):
                answers.append(await asyncio.wait_for(client.read_event(), 120))
            return [answer.type for answer in first], sound_of(answers)

    first, sound = asyncio.run(run())
    assert first == ["audio-start", "audio-chunk"]
    assert len(sound) > 2 * 24_000


def test_errors_are_events_and_the_connection_stays(port: int):
    answers = talk(port, Synthesize("Yes.", SynthesizeVoice(name="bob")), Describe(), last=Info)
    error = Error.from_event(answers[0])
    assert error.code == "voice_not_found" and "bob" in error.text
    assert Error.from_event(talk(port, Synthesize("x" * 5000), last=Error)[-1]).code == "input_too_long"
    long = [SynthesizeStart(), SynthesizeChunk("x" * 5000)]
    assert Error.from_event(talk(port, *long, last=Error)[-1]).code == "input_too_long"


def test_nothing_to_say_is_no_error(port: int):
    assert [answer.type for answer in talk(port, Synthesize(" 🙂 "))] == ["audio-start", "audio-stop"]
    stopped = talk(port, SynthesizeStart(), SynthesizeStop(), last=SynthesizeStopped)
    assert stopped[-1].type == "synthesize-stopped"


def test_a_client_that_leaves_ends_its_request(port: int, demo: Running):
    demo.wait_idle()
    total = sum(demo.counts().values())

    async def run() -> None:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Synthesize("Hello there. " * 100).event())
            for _ in range(2):
                await client.read_event()

    asyncio.run(run())
    demo.wait_idle()
    assert sum(demo.counts().values()) == total + 1
