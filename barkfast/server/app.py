"""The HTTP application: OpenAI's route for speech, what clients ask besides, health and metrics."""

import asyncio
import base64
import contextlib
import hmac
import json
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

import barkfast
from barkfast.errors import BarkfastError
from barkfast.server.encoders import ENCODERS, Encoder
from barkfast.server.errors import TYPES, ApiError, from_engine
from barkfast.server.metrics import CONTENT_TYPE, Clock, Metrics
from barkfast.server.settings import Settings
from barkfast.server.speech import BYTES_PER_CHARACTER, OTHER_BYTES, Asked, parse
from barkfast.server.stretch import Stretch
from barkfast.server.voices import VoiceTable, language_of, make_table

logger = logging.getLogger(__name__)

SPEECH_ROUTES = ("/v1/audio/speech", "/v1/audio/speech/", "/audio/speech", "/audio/speech/")
# Seconds between comments that keep an event stream alive.
KEEP_ALIVE_S = 10.0
# What a seed of the server's own is drawn below: every JSON reader holds such a number exactly.
SEEDS = 2**32
# Semantic tokens of a second of sound, for `usage`.
TOKENS_PER_S = 49.9


@dataclass(frozen=True)
class About:
    """What runs behind an application.

    Args:
        model: its name.
        voices: the names of its voices.
        engine, dtype: that run it.
        slots: requests that are generated in a batch.
    """

    model: str
    voices: tuple[str, ...]
    engine: str = ""
    dtype: str = ""
    slots: int = 0


def create_app(engine: Any, settings: Settings, about: About | Callable[[], About | None]) -> FastAPI:
    """The application over an engine that somebody else starts, drains and closes.

    Args:
        engine: an `Engine`, or what has its methods.
        about: what runs behind it, or a function that says so, or None while it is not known yet.
    """
    return Server(engine, settings, about).app


class Server:
    """One application's state and routes."""

    def __init__(self, engine: Any, settings: Settings, about: About | Callable[[], About | None]) -> None:
        self.engine, self.settings = engine, settings
        self._about = about
        self.metrics = Metrics({"version": barkfast.__version__})
        self.draining = False
        self.app = FastAPI(
            title="barkfast",
            version=barkfast.__version__,
            description="Speech by Bark, on the routes that OpenAI's clients call.",
            root_path=settings.root_path,
            redoc_url=None,
        )
        self.app.state.server = self
        if settings.cors:
            self.app.add_middleware(
                CORSMiddleware, allow_origins=list(settings.cors), allow_methods=["*"], allow_headers=["*"]
            )
        self._add_routes()

    @property
    def about(self) -> About:
        """What runs. Raises: ApiError 503 while the model is being loaded."""
        about = self._about() if callable(self._about) else self._about
        if about is None:
            raise ApiError(503, "the model is being loaded; try again", "loading", retry_after=2.0)
        return about

    @property
    def voices(self) -> VoiceTable:
        """The names of voices."""
        return make_table(self.about.voices, self.settings.voice_aliases, self.settings.voice)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the model."""
        return self.settings.served_names or (self.about.model,)

    def _add_routes(self) -> None:
        app = self.app
        app.add_exception_handler(ApiError, _refuse)
        app.add_exception_handler(HTTPException, _refuse_http)
        app.add_exception_handler(Exception, _fail)
        for i, path in enumerate(SPEECH_ROUTES):
            app.add_api_route(path, self.speak, methods=["POST"], include_in_schema=not i, **SPEECH_DOCUMENT)
        app.add_api_route("/v1/models", self.list_models, methods=["GET"])
        app.add_api_route("/v1/models/{model}", self.show_model, methods=["GET"])
        app.add_api_route("/v1/audio/models", self.list_audio_models, methods=["GET"])
        app.add_api_route("/audio/models", self.list_audio_models, methods=["GET"], include_in_schema=False)
        app.add_api_route("/v1/audio/voices", self.list_voices, methods=["GET"])
        app.add_api_route("/audio/voices", self.list_voices, methods=["GET"], include_in_schema=False)
        for path in ("/health", "/readyz"):
            app.add_api_route(path, self.show_ready, methods=["GET"])
        app.add_api_route("/livez", self.show_alive, methods=["GET"])
        app.add_api_route("/version", self.show_version, methods=["GET"])
        app.add_api_route("/metrics", self.show_metrics, methods=["GET"], response_class=Response)

    # --- speech

    async def speak(self, request: Request) -> Response:
        """Speak a text; sound is sent while it is generated."""
        clock = Clock()
        most = self.settings.max_input * BYTES_PER_CHARACTER + OTHER_BYTES
        body = await read_body(request, most)
        asked = parse(body, self.voices, self.settings.max_input, self.settings.mode)
        self.check_key(request)
        encoder = _encoder_of(asked, self.engine.sample_rate)
        seed = asked.options.get("seed")
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        number = uuid.uuid4().hex
        stream = await self._open(asked, seed, clock, number)
        headers = {
            "x-request-id": number,
            "x-seed": str(seed),
            "x-sample-rate": str(self.engine.sample_rate),
            "X-Accel-Buffering": "no",
            "Cache-Control": "no-store",
        }
        if asked.ignored:
            headers["x-ignored"] = ", ".join(asked.ignored)
        sound = self._send(stream, asked, encoder, clock, number)
        if asked.events:
            return StreamingResponse(_events(sound, asked, clock), media_type="text/event-stream", headers=headers)
        return StreamingResponse(sound, headers=headers | {"content-type": encoder.media_type})

    async def _open(self, asked: Asked, seed: int, clock: Clock, number: str) -> Any:
        """A stream that the engine has accepted. Raises: ApiError."""
        if self.draining or not self.engine.accepting:
            self._end(clock, number, asked, "refused")
            raise ApiError(503, "the server takes no requests now; try again", "unavailable", retry_after=self.pace())
        try:
            stream = self.engine.stream(asked.text, voice=asked.voice, **{**asked.options, "seed": seed})
            await stream.open()
        except BarkfastError as error:
            self._end(clock, number, asked, "refused")
            raise from_engine(error, self.pace()) from error
        clock.admit()
        return stream

    async def _send(
        self, stream: Any, asked: Asked, encoder: Encoder, clock: Clock, number: str
    ) -> AsyncIterator[bytes]:
        """The bytes of a sound; whatever ends it, the stream is closed and the end counted, once."""
        outcome, stretch = "cancelled", Stretch(self.engine.sample_rate, asked.speed)
        self.metrics.waiting.inc()
        state = self.metrics.waiting
        try:
            async for samples in stream:
                if clock.first_audio_s is None:
                    self.metrics.waiting.dec()
                    self.metrics.running.inc()
                    state = self.metrics.running
                clock.receive(len(samples) / self.engine.sample_rate)
                data = await _encode(encoder, stretch.push(samples))
                if data:
                    yield data
            data = await _encode(encoder, stretch.finish()) + await asyncio.to_thread(encoder.finish)
            if data:
                yield data
            outcome = "done"
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception:
            # The connection is cut, never ended as if all had been sent.
            outcome = "failed"
            raise
        finally:
            state.dec()
            self._end(clock, number, asked, outcome)
            await stream.aclose()

    def _end(self, clock: Clock, number: str, asked: Asked, outcome: str) -> None:
        """Count a request that has ended, and log it: all but its text."""
        metrics = self.metrics
        metrics.requests.labels(outcome=outcome).inc()
        line: dict[str, Any] = {"request": number, "outcome": outcome, "voice": asked.voice, "format": asked.format}
        line |= {"characters": len(asked.text), "seconds": round(clock.seconds, 3), "audio_s": round(clock.audio_s, 3)}
        if clock.admitted_s is not None:
            metrics.queue_wait.observe(clock.admitted_s)
            line["queue_wait_s"] = round(clock.admitted_s, 3)
        if clock.first_audio_s is not None:
            metrics.first_audio.observe(clock.first_audio_s)
            metrics.audio_seconds.inc(clock.audio_s)
            metrics.underrun.observe(clock.underrun_s)
            line |= {"first_audio_s": round(clock.first_audio_s, 3), "underrun_s": round(clock.underrun_s, 3)}
        if outcome == "done" and clock.audio_s:
            factor = clock.seconds / clock.audio_s
            metrics.request_seconds.observe(clock.seconds)
            metrics.real_time_factor.observe(factor)
            line["real_time_factor"] = round(factor, 3)
        logger.info(json.dumps(line))

    def pace(self) -> float:
        """Seconds until a slot is likely to be free: the usual time of a request over the slots."""
        whole = self.engine.stats().whole_s
        return max(1.0, whole[0] / max(1, self.about.slots)) if whole else 1.0

    def check_key(self, request: Request) -> None:
        """Raise ApiError 401 unless one of the keys was sent, where keys are asked for."""
        if not self.settings.api_keys:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = False
        for key in self.settings.api_keys:
            # All of them, so that the time says nothing.
            right |= hmac.compare_digest(given.strip().encode(), key.encode())
        if scheme.lower() != "bearer" or not right:
            raise ApiError(401, "the API key is missing or wrong; send 'Authorization: Bearer KEY'", "invalid_api_key")

    # --- what there is

    async def list_models(self, request: Request) -> dict[str, Any]:
        """The names that the model goes by."""
        self.check_key(request)
        return {"object": "list", "data": [self._model(name) for name in self.names]}

    async def show_model(self, model: str, request: Request) -> dict[str, Any]:
        """One of them."""
        self.check_key(request)
        if model not in self.names:
            raise ApiError(404, f"there is no model {model!r}; there is {', '.join(self.names)}", "model_not_found")
        return self._model(model)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": "barkfast"}

    async def list_audio_models(self, request: Request) -> dict[str, Any]:
        """The same as Open WebUI asks for them."""
        self.check_key(request)
        return {"models": [{"id": name} for name in self.names]}

    async def list_voices(self, request: Request, format: str = "objects") -> dict[str, Any]:
        """The names of voices; with format=names as strings."""
        self.check_key(request)
        names = self.voices.names()
        if format == "names":
            return {"object": "list", "voices": names, "data": names}
        entries = [
            {"id": name, "name": name, "voice_id": name, "language": language_of(self.voices.aliases.get(name, name))}
            for name in names
        ]
        return {"object": "list", "voices": entries, "data": entries}

    # --- health

    async def show_alive(self) -> dict[str, Any]:
        """That this process answers, whatever the engine does."""
        return {"status": "ok"}

    async def show_ready(self) -> Response:
        """200 while requests are taken, 503 while the engine loads, drains or is dead."""
        ready = self.engine.accepting and not self.draining
        status = "ready" if ready else "draining" if self.draining else "not ready"
        return JSONResponse({"status": status}, 200 if ready else 503)

    async def show_version(self) -> dict[str, Any]:
        """What runs."""
        about = self.about
        return {"version": barkfast.__version__, "model": about.model, "engine": about.engine, "dtype": about.dtype}

    async def show_metrics(self) -> Response:
        """For Prometheus."""
        self.metrics.healthy.set(bool(self.engine.healthy))
        return Response(self.metrics.render(), media_type=CONTENT_TYPE)

    async def drain(self) -> bool:
        """Take no more requests, and let those in progress end; whether all have."""
        self.draining = True
        return await self.engine.drain(self.settings.drain_s)


async def read_body(request: Request, most: int) -> bytes:
    """A request's body. Raises: ApiError 413 if it is longer than `most` bytes, before all of it is read."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise ApiError(413, f"the body is longer than {most} bytes", "body_too_large")
    return bytes(body)


def _encoder_of(asked: Asked, sample_rate: int) -> Encoder:
    try:
        return ENCODERS[asked.format](sample_rate)
    except BarkfastError as error:
        raise ApiError(400, str(error), "unsupported_format", "response_format") from error


async def _encode(encoder: Encoder, samples: np.ndarray) -> bytes:
    return await asyncio.to_thread(encoder.encode, samples) if len(samples) else b""


async def _events(sound: AsyncIterator[bytes], asked: Asked, clock: Clock) -> AsyncIterator[bytes]:
    """Sound as server-sent events, with comments while there is none; an error is an event before the cut."""
    source = aiter(sound)
    coming: asyncio.Task[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(source))
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE_S)
            if not done:
                yield b": keep-alive\n\n"
                continue
            task, coming = coming, None
            try:
                data = task.result()
            except StopAsyncIteration:
                break
            yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
        n_in, n_out = len(asked.text.split()), round(clock.audio_s * TOKENS_PER_S)
        usage = {"input_tokens": n_in, "output_tokens": n_out, "total_tokens": n_in + n_out}
        yield _event({"type": "speech.audio.done", "usage": usage})
    except BarkfastError as error:
        yield _event({"type": "error", **from_engine(error, 1.0).body()})
        raise
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        with contextlib.suppress(RuntimeError):
            await sound.aclose()  # type: ignore[attr-defined]


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


# --- errors


async def _refuse(_: Request, error: Any) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers())


async def _refuse_http(request: Request, error: Any) -> JSONResponse:
    """Of the router: no such path, or another method."""
    words = {404: f"there is no {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    refused = ApiError(error.status_code, words.get(error.status_code, str(error.detail)), code)
    return JSONResponse(refused.body(), error.status_code, {**(error.headers or {})})


async def _fail(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    refused = from_engine(error, 1.0)
    return JSONResponse(refused.body(), refused.status, refused.headers())


# --- the description of the route, whose body is read by hand so that every error is OpenAI's

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": sorted(set(TYPES.values()))},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
SPEECH_DOCUMENT: dict[str, Any] = {"response_class": StreamingResponse, "summary": "Speak a text"}
