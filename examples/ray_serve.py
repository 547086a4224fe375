"""A Ray Serve deployment: as many replicas as there are devices, each with its own engine.

    pip install barkfast "ray[serve]"
    BARKFAST_MODEL=suno/bark-small serve run --app-dir examples ray_serve:app
    curl localhost:8000 --json '{"text": "Hello there.", "voice": "v2/en_speaker_6"}' | ffplay -

Serve has its own queue in front of each replica. An engine batches its requests, so a replica gets more at a time than
Serve's default: as many as the engine's slots and its queue hold.
"""

import asyncio
import os
from collections.abc import AsyncIterator

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from barkfast import Bark, BarkfastError, Engine, InputError
from barkfast.audio import stream_header, to_pcm16

N_SLOTS, QUEUE_SIZE = 8, 64
# So that one long text does not delay other requests for minutes.
MOST_CHARACTERS = 4096
KNOWN = {"text", "voice", "seed", "mode", "priority", "deadline_s", "max_duration_s"}


@serve.deployment(
    max_ongoing_requests=N_SLOTS + QUEUE_SIZE,
    # Beyond these Serve itself answers 503.
    max_queued_requests=QUEUE_SIZE,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=30,
)
class Speech:
    """One replica."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._starting = asyncio.Lock()

    async def engine(self) -> Engine:
        """The engine; the first request starts it, in the event loop that serves all requests."""
        async with self._starting:
            if self._engine is None:
                model = os.environ.get("BARKFAST_MODEL") or "demo"
                engine = Engine(Bark(model), n_slots=N_SLOTS, queue_size=QUEUE_SIZE)
                await engine.start()
                self._engine = engine
        return self._engine

    def check_health(self) -> None:
        """Raise if the engine has failed permanently: Serve replaces the replica. Does not wait for the worker."""
        if self._engine is not None and not self._engine.healthy:
            raise RuntimeError("the engine has failed")

    async def __call__(self, request: Request) -> Response:
        """Stream a wav of unknown length while it is generated."""
        try:
            asked = await request.json()
        except ValueError:
            asked = None
        if not isinstance(asked, dict) or not {"text"} <= set(asked) <= KNOWN:
            return JSONResponse({"error": f"expected a JSON object with some of {sorted(KNOWN)}"}, 400)
        try:
            if len(str(asked["text"])) > MOST_CHARACTERS:
                raise InputError(f"the text is too long; expected at most {MOST_CHARACTERS} characters")
            engine = await self.engine()
            stream = engine.stream(**asked)
            first = await anext(stream)
        except BarkfastError as error:
            return JSONResponse({"error": str(error)}, 400 if isinstance(error, InputError) else 503)

        async def send() -> AsyncIterator[bytes]:
            async with stream:
                yield stream_header(engine.sample_rate) + to_pcm16(first)
                async for chunk in stream:
                    yield to_pcm16(chunk)

        return StreamingResponse(send(), media_type="audio/wav")


app = Speech.bind()
