"""What the servers beside this have in common: texts of any length through an engine, as they are spoken."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from barkfast.engine.engine import Engine
from barkfast.engine.stream import Stream
from barkfast.errors import InputError
from barkfast.longform import split_chunks
from barkfast.longform.joining import pause_after

# So that nobody's text keeps the others waiting for minutes.
MOST_CHARACTERS = 4096


async def speak_text(
    engine: Engine,
    text: str,
    voice: Any = None,
    *,
    seed: int | None = None,
    deadline_s: float | None = None,
    **options: Any,
) -> AsyncIterator[np.ndarray]:
    """Speak sentence by sentence, (n,) float32 chunks: while one is heard, the next is being spoken.

    Args:
        voice: name one, or every sentence is spoken by somebody else.
        options: the others of `Engine.stream`. A full queue refuses the first sentence; the others wait.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise InputError(f"the text has {len(str(text))} characters; expected at most {MOST_CHARACTERS}")
    sentences = [chunk for chunk in split_chunks(text, each_sentence=True) if chunk.speakable]
    if not sentences:
        raise InputError(f"text is {text[:80]!r}: nothing to say; expected a letter or a digit")
    asked_at = time.monotonic()

    def left() -> float | None:
        """Seconds until the deadline, which is one for all."""
        return None if deadline_s is None else max(1e-3, deadline_s - (time.monotonic() - asked_at))

    def ask(number: int) -> tuple[Stream, "asyncio.Task[None]"]:
        stream = engine.stream(
            sentences[number].text,
            voice,
            seed=None if seed is None else seed + number,
            overflow="error",
            deadline_s=left() if number else deadline_s,
            wait=number > 0,
            **options,
        )
        return stream, asyncio.create_task(stream.open())

    asked = [ask(0)]
    try:
        for number, sentence in enumerate(sentences):
            stream, opening = asked[0]
            await opening
            if number + 1 < len(sentences):
                asked.append(ask(number + 1))
            async for chunk in stream:
                yield chunk
            asked.pop(0)
            if asked:
                yield np.zeros(round(pause_after(sentence) * engine.sample_rate), np.float32)
    finally:
        for stream, opening in asked:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await stream.aclose()
