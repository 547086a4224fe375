"""The text-to-speech clients of LiveKit and Pipecat against a server: `python speak.py http://HOST:PORT/v1`."""

import asyncio
import sys

TEXT = "Hello there. How are you today?"


def check(name: str, rate: int, n_bytes: int) -> None:
    """Print how much sound came. Raises: SystemExit for none, or another sample rate."""
    seconds = n_bytes / 2 / rate
    print(f"{name}: {seconds:.2f} s of sound at {rate} Hz")
    if rate != 24_000 or not 0.5 < seconds < 20:
        sys.exit(f"{name}: expected 0.5 to 20 s at 24000 Hz")


async def livekit(url: str) -> None:
    """As bytes with tts-1, as events with the model that it has by default, in every format that it decodes."""
    from livekit.plugins import openai

    for model, format in (("tts-1", "mp3"), ("gpt-4o-mini-tts", "mp3"), ("gpt-4o-mini-tts", "opus"), ("tts-1", "wav")):
        tts = openai.TTS(base_url=url, api_key="none", model=model, response_format=format)
        tts.prewarm()
        n_bytes = rate = 0
        async with tts.synthesize(TEXT) as stream:
            async for event in stream:
                rate, n_bytes = event.frame.sample_rate, n_bytes + len(event.frame.data.tobytes())
        await tts.aclose()
        check(f"livekit, {model}, {format}", rate, n_bytes)


async def pipecat(url: str) -> None:
    """Its service without a pipeline around it."""
    from pipecat.frames.frames import ErrorFrame, TTSAudioRawFrame
    from pipecat.services.openai.tts import OpenAITTSService

    service = OpenAITTSService(api_key="none", base_url=url, sample_rate=24_000)
    service._sample_rate = 24_000
    n_bytes = rate = 0
    async for frame in service.run_tts(TEXT, "context"):
        if isinstance(frame, ErrorFrame):
            sys.exit(f"pipecat: {frame.error}")
        if isinstance(frame, TTSAudioRawFrame):
            rate, n_bytes = frame.sample_rate, n_bytes + len(frame.audio)
    check("pipecat", rate, n_bytes)


async def main(url: str) -> None:
    """All of them."""
    await livekit(url)
    await pipecat(url)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
