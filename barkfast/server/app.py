"""The HTTP application: OpenAI's route for speech, what clients ask besides, voices, health and metrics."""

import asyncio
import hmac
import logging
import uuid
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import barkfast
from barkfast.server import description
from barkfast.server.encoders import make_encoder
from barkfast.server.errors import ApiError, from_engine
from barkfast.server.metrics import CONTENT_TYPE, Clock, Metrics
from barkfast.server.pages import add_pages
from barkfast.server.response import SpeechResponse
from barkfast.server.settings import About, Settings
from barkfast.server.speaking import Speaker
from barkfast.server.speech import BYTES_PER_CHARACTER, OTHER_BYTES, parse
from barkfast.server.uploads import MOST_BYTES, Uploads
from barkfast.server.voices import VoiceTable, make_table

logger = logging.getLogger(__name__)

# Seconds in which a body must have come.
BODY_S = 30.0
# Bytes of free memory below which the server is not ready.
LEAST_FREE = 64 << 20


def create_app(engine: Any, settings: Settings, about: About | Callable[[], About | None]) -> FastAPI:
    """The application over an engine that somebody else starts, drains and closes.

    Args:
        engine: an `Engine`, or what has its methods.
        about: what runs behind it, or a function that says so, or None while it is not known yet.

    Raises:
        VoiceError: an alias or the default voice of the settings stands for no voice.
    """
    return Server(engine, settings, about).app


class _App(FastAPI):
    """FastAPI, whose description is made anew each time: the voices are in it."""

    describe: Callable[[], dict[str, Any]]

    def openapi(self) -> dict[str, Any]:
        return self.describe()


class Server:
    """One application's state and routes; `app.state.server`."""

    def __init__(self, engine: Any, settings: Settings, about: About | Callable[[], About | None]) -> None:
        self.engine, self.settings = engine, settings
        self._about = about
        self._table: tuple[About, VoiceTable] | None = None
        self.uploads = Uploads(settings.uploads) if settings.uploads is not None else None
        self.metrics = Metrics({"version": barkfast.__version__})
        self.speaker = Speaker(engine, self.metrics, settings.log_texts, settings.watermark)
        self.app = _App(
            title="barkfast",
            version=barkfast.__version__,
            description="Speech by Bark, on the routes that OpenAI's clients call.",
            root_path=settings.root_path,
            redoc_url=None,
        )
        self.app.state.server = self
        self.app.describe = lambda: description.describe(self.app, settings, self._known_voices())
        if settings.cors:
            exposed = [*description.HEADERS, "x-ignored", "retry-after"]
            allowed: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"], "expose_headers": exposed}
            self.app.add_middleware(CORSMiddleware, allow_origins=list(settings.cors), **allowed)
        self._add_routes()
        if isinstance(about, About):
            self.voices()

    @property
    def about(self) -> About:
        """What runs. Raises: ApiError 503 while that is not known."""
        about = self._about() if callable(self._about) else self._about
        if about is None:
            raise ApiError(503, "the model is being loaded; try again", "loading", retry_after=2.0)
        return about

    def voices(self) -> VoiceTable:
        """The names of voices."""
        about = self.about
        if self._table is None or self._table[0] is not about:
            self._table = about, make_table(about.voices, self.settings.voice_aliases, self.settings.voice)
        table = self._table[1]
        return table.extend(self.uploads.files()) if self.uploads else table

    def _known_voices(self) -> list[str] | None:
        try:
            return self.voices().names()
        except ApiError:
            return None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the model."""
        return self.settings.served_names or (self.about.model,)

    def _add_routes(self) -> None:
        app = self.app
        app.add_exception_handler(ApiError, _refuse)
        app.add_exception_handler(HTTPException, _refuse_http)
        app.add_exception_handler(RequestValidationError, _refuse_argument)
        app.add_exception_handler(ClientDisconnect, _ignore)
        app.add_exception_handler(Exception, _fail)

        def add(path: str, handler: Any, method: str = "GET", statuses: tuple[int, ...] = (), **document: Any) -> None:
            document.setdefault("responses", description.errors(*statuses))
            app.add_api_route(path, handler, methods=[method], **document)
            # The same without the version, and with a slash at the end: clients send all of them.
            for other in {path + "/", path.removeprefix("/v1"), path.removeprefix("/v1") + "/"} - {path}:
                if path.startswith("/v1/audio/"):
                    app.add_api_route(other, handler, methods=[method], include_in_schema=False)

        add("/v1/audio/speech", self.speak, "POST", **description.SPEECH)
        add("/v1/audio/models", self.list_audio_models, statuses=(401, 503))
        add("/v1/audio/voices", self.list_voices, statuses=(400, 401, 503))
        add("/v1/audio/voices", self.add_voice, "POST", **description.UPLOAD)
        add("/v1/audio/voices", self.remove_voice, "DELETE", (400, 401, 403, 404, 503))
        add("/v1/models", self.list_models, statuses=(401, 503))
        add("/v1/models/{model}", self.show_model, statuses=(401, 404, 503))
        for path in ("/health", "/readyz"):
            add(path, self.show_ready, responses={503: {"description": description.WORDS[503]}})
        add("/livez", self.show_alive)
        add("/version", self.show_version, statuses=(503,))
        add("/metrics", self.show_metrics, response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        if self.settings.web:
            add_pages(app, self)

    # --- speech

    async def speak(self, request: Request) -> Response:
        """Speak a text; sound is sent while it is generated."""
        clock, number = Clock(), uuid.uuid4().hex
        try:
            body = await read_body(request, self.settings.max_input * BYTES_PER_CHARACTER + OTHER_BYTES)
            asked = parse(body, self.voices(), self.settings.max_input, self.settings.mode)
            self.check_key(request)
            encoder = make_encoder(asked.format, self.engine.sample_rate, "response_format")
        except ApiError as error:
            self.speaker.count_refused(clock, number, error)
            raise
        speech = await self.speaker.open(asked, clock, number)
        rate = self.engine.sample_rate
        headers = {"x-request-id": number, "x-seed": str(speech.seed), "x-sample-rate": str(rate)}
        headers |= {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        if asked.ignored:
            headers["x-ignored"] = ", ".join(asked.ignored)
        return SpeechResponse(speech, encoder, rate, headers)

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

    # --- models and voices

    async def list_models(self, request: Request) -> dict[str, Any]:
        """The names that the model goes by."""
        self.check_key(request)
        return {"object": "list", "data": [_model(name) for name in self.names]}

    async def show_model(self, model: str, request: Request) -> dict[str, Any]:
        """One of them."""
        self.check_key(request)
        if model not in self.names:
            there = ", ".join(self.names)
            raise ApiError(404, f"there is no model {model[:100]!r}; there is {there}", "model_not_found", "model")
        return _model(model)

    async def list_audio_models(self, request: Request) -> dict[str, Any]:
        """The same as Open WebUI asks for them."""
        self.check_key(request)
        return {"models": [{"id": name} for name in self.names]}

    async def list_voices(self, request: Request, format: str = "objects") -> dict[str, Any]:
        """The names of voices; with format=names as strings."""
        self.check_key(request)
        voices = self.voices()
        listed: list[Any] = voices.names()
        if format != "names":
            listed = [
                {"id": name, "name": name, "voice_id": name, "language": voices.language_of(name)} for name in listed
            ]
        return {"object": "list", "voices": listed, "data": listed}

    async def add_voice(
        self, request: Request, name: Annotated[str, Query(**description.VOICE_NAME)]
    ) -> dict[str, Any]:
        """Keep a voice: the body is its .npz file."""
        content = await read_body(request, MOST_BYTES)
        uploads, about = self._uploads(request), self.about
        if name in self.voices().names():
            raise ApiError(409, f"there is a voice {name!r}; delete it first, or choose another name", "exists", "name")
        await asyncio.to_thread(uploads.add, name, content, about.layout)
        return {"id": name, "object": "voice"}

    async def remove_voice(
        self, request: Request, name: Annotated[str, Query(**description.VOICE_NAME)]
    ) -> dict[str, Any]:
        """Delete a voice that was uploaded."""
        if not await asyncio.to_thread(self._uploads(request).remove, name):
            raise ApiError(404, f"no voice {name!r} was uploaded", "voice_not_found", "name")
        return {"id": name, "object": "voice", "deleted": True}

    def _uploads(self, request: Request) -> Uploads:
        self.check_key(request)
        if self.uploads is None:
            raise ApiError(403, "this server takes no voices; start it with --allow-upload", "uploads_off")
        return self.uploads

    # --- health

    async def show_alive(self) -> dict[str, Any]:
        """That this process answers, whatever the engine does."""
        return {"status": "ok"}

    async def show_ready(self) -> Response:
        """200 while requests are taken, 503 while the engine loads, stops, is dead or without memory."""
        free = getattr(self.engine, "free_bytes", None)
        if not self.speaker.accepting:
            status = "stopping" if self.speaker.draining else "not ready"
        elif free is not None and free < LEAST_FREE:
            status = "no memory"
        else:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": status}, 503)

    async def show_version(self) -> dict[str, Any]:
        """What runs."""
        about = self.about
        return {"version": barkfast.__version__, "model": about.model, "engine": about.engine, "dtype": about.dtype}

    async def show_metrics(self) -> Response:
        """For Prometheus."""
        about = self._about() if callable(self._about) else self._about
        return Response(self.metrics.render(self.engine, about.slots if about else 0), media_type=CONTENT_TYPE)

    async def drain(self) -> bool:
        """Take no more requests, and let those in progress end; whether all have."""
        return await self.speaker.drain(self.settings.drain_s)


async def read_body(request: Request, most: int) -> bytes:
    """A request's body.

    Raises: ApiError 413 if it is longer than `most` bytes, before all of it is read; 408 if it comes too slowly.
    """

    async def read() -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise ApiError(413, f"the body is longer than {most} bytes", "body_too_large")
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), BODY_S)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the body did not come within {BODY_S:g} s", "body_too_slow") from None


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "barkfast"}


# --- errors


async def _refuse(_: Request, error: Any) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers())


async def _refuse_http(request: Request, error: Any) -> JSONResponse:
    """Of the router: no such path, or another method."""
    words = {404: f"there is no {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    refused = ApiError(error.status_code, words.get(error.status_code, str(error.detail)), code)
    return JSONResponse(refused.body(), error.status_code, {**(error.headers or {})})


async def _refuse_argument(_: Request, error: Any) -> JSONResponse:
    """Of an argument in the address."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    refused = ApiError(400, f"{name}: {first['msg']}", "invalid_value", name)
    return JSONResponse(refused.body(), 400)


async def _ignore(_: Request, __: Any) -> Response:
    """The client has left."""
    return Response(status_code=400)


async def _fail(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    refused = from_engine(error, 1.0)
    return JSONResponse(refused.body(), refused.status, refused.headers())
