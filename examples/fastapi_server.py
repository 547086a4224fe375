"""An HTTP server whose sound comes as it is spoken.

    pip install barkfast fastapi uvicorn
    BARKFAST_MODEL=suno/bark-small uvicorn fastapi_server:app --app-dir examples
    curl localhost:8000/speech --json '{"text": "Hello there.", "voice": "v2/en_speaker_6"}' | ffplay -

One process holds one engine: more workers would load the model once more each.
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
# So that nobody's text keeps the others waiting for minutes.
MOST_CHARACTERS = 4096


class Speech(BaseModel):
    """What is asked for."""

    text: str = Field(max_length=MOST_CHARACTERS)
    voice: str | None = None
    seed: int | None = None
    mode: Literal["exact", "low_latency"] = "exact"
    priority: int = 0
    deadline_s: float | None = None
    max_duration_s: float | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model with the server; on SIGTERM let what is being spoken come to its end."""
    async with Engine(Bark(os.environ.get("BARKFAST_MODEL") or "demo")) as engine:
        app.state.engine = engine
        yield
        await engine.drain(DRAIN_S)


app = FastAPI(lifespan=lifespan)


@app.exception_handler(BarkfastError)
async def refuse(_: Request, error: BarkfastError) -> JSONResponse:
    """Every error of barkfast says what to do; the status says whose fault it is."""
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
    """A wav of unknown length, sentence by sentence. A client that goes away ends the work for it."""
    engine: Engine = app.state.engine
    stream = engine.stream(**asked.model_dump())
    # Before the status is sent: until the first chunk an error still has one of its own.
    first = await anext(stream)

    async def send() -> AsyncIterator[bytes]:
        async with stream:
            yield stream_header(engine.sample_rate) + to_pcm16(first)
            async for chunk in stream:
                yield to_pcm16(chunk)

    return StreamingResponse(send(), media_type="audio/wav")


@app.get("/health")
async def health() -> JSONResponse:
    """503 from when the engine has failed for good: restart the process. Asks nothing of the thread that works."""
    engine: Engine = app.state.engine
    state: dict[str, Any] = {"healthy": engine.healthy, "accepting": engine.accepting}
    return JSONResponse(state, 200 if engine.healthy else 503)


@app.get("/stats")
async def stats() -> dict[str, Any]:
    """Numbers for a dashboard."""
    engine: Engine = app.state.engine
    return vars(engine.stats())
