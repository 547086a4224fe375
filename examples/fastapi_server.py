"""An HTTP server that streams sound while it is generated.

    pip install barkfast fastapi uvicorn
    BARKFAST_MODEL=suno/bark-small uvicorn fastapi_server:app --app-dir examples
    curl localhost:8000/speech --json '{"text": "Hello there.", "voice": "v2/en_speaker_6"}' | ffplay -

One process has one engine: each additional worker would load the model again.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from barkfast import Bark, BarkfastError, Engine, InputError
from barkfast.audio import stream_header, to_pcm16
from barkfast.errors import DeadlineExceeded, EngineClosed, EngineDead, QueueFull

DRAIN_S = 30.0
# So that one long text does not delay other requests for minutes.
MOST_CHARACTERS = 4096


class Speech(BaseModel):
    """The body of a request."""

    text: str = Field(max_length=MOST_CHARACTERS)
    voice: str | None = None
    seed: int | None = None
    mode: Literal["exact", "low_latency"] = "exact"
    priority: int = 0
    deadline_s: float | None = None
    max_duration_s: float | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model when the server starts; on SIGTERM finish the running requests."""
    async with Engine(Bark(os.environ.get("BARKFAST_MODEL") or "demo")) as engine:
        app.state.engine = engine
        yield
        await engine.drain(DRAIN_S)


app = FastAPI(lifespan=lifespan)


@app.exception_handler(BarkfastError)
async def refuse(_: Request, error: BarkfastError) -> JSONResponse:
    """Map barkfast's errors to HTTP statuses; the message says what to do."""
    status = 500
    if isinstance(error, InputError):
        status = 400
    elif isinstance(error, DeadlineExceeded):
        status = 504
    elif isinstance(error, QueueFull | EngineClosed | EngineDead):
        status = 503
    headers = {"Retry-After": "1"} if isinstance(error, QueueFull) else {}
    return JSONResponse({"error": str(error)}, status, headers)


@app.post("/speech")
async def speak(asked: Speech) -> Response:
    """Stream a wav of unknown length, sentence by sentence. The request is cancelled if its client disconnects."""
    engine: Engine = app.state.engine
    stream = engine.stream(**asked.model_dump())
    # Wait for the first chunk before the status is sent: an error until then still gets its own status.
    first = await anext(stream)

    async def send() -> AsyncIterator[bytes]:
        async with stream:
            yield stream_header(engine.sample_rate) + to_pcm16(first)
            async for chunk in stream:
                yield to_pcm16(chunk)

    return StreamingResponse(send(), media_type="audio/wav")


@app.get("/health")
async def health() -> JSONResponse:
    """503 if the engine has failed permanently: restart the process. Does not wait for the worker thread."""
    engine: Engine = app.state.engine
    state: dict[str, Any] = {"healthy": engine.healthy, "accepting": engine.accepting}
    return JSONResponse(state, 200 if engine.healthy else 503)


@app.get("/stats")
async def stats() -> dict[str, Any]:
    """Numbers for a dashboard."""
    engine: Engine = app.state.engine
    return vars(engine.stats())
