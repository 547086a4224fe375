"""The pages for people: / speaks, /status shows how the server does. They call the routes that every client calls."""

import asyncio
import html
import json
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from barkfast.server.encoders import ENCODERS, make_encoder
from barkfast.server.errors import ApiError

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# The place in the pages' head that the settings go to.
SETTINGS = "{{ settings }}"
# Nothing but the server's own files and routes; what is shown can never run.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Bytes of 16-bit samples that are encoded at once, and in all: two hours.
BLOCK, MOST = 1 << 17, 2 * 3600 * 24_000 * 2


def add_pages(app: FastAPI, server: Any) -> None:
    """Add the pages, their files, and the encoder of their downloads to a `Server`'s application."""
    folder = files("barkfast.server") / "web"
    content = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.rpartition(".")[2] in TYPES}

    def show(name: str) -> Response:
        body, kind = content[name], TYPES[name.rpartition(".")[2]]
        if kind == "text/html":
            known = html.escape(json.dumps(_settings(server)))
            body = body.replace(SETTINGS.encode(), known.encode())
        return Response(body, media_type=kind, headers=HEADERS)

    async def show_page() -> Response:
        return show("index.html")

    async def show_status() -> Response:
        return show("status.html")

    async def show_file(name: str) -> Response:
        if name not in content or name.endswith(".html"):
            raise ApiError(404, f"there is no web/{name}", "not_found")
        return show(name)

    async def encode(request: Request, format: str = "mp3") -> Response:
        """16-bit samples, as a take of the page has them, in another format."""
        server.check_key(request)
        return await encode_samples(request, format, server.engine.sample_rate)

    hidden: dict[str, Any] = {"include_in_schema": False}
    app.add_api_route("/", show_page, methods=["GET"], **hidden)
    app.add_api_route("/status", show_status, methods=["GET"], **hidden)
    app.add_api_route("/web/encode", encode, methods=["POST"], **hidden)
    app.add_api_route("/web/{name}", show_file, methods=["GET"], **hidden)


def _settings(server: Any) -> dict[str, Any]:
    """What the pages need to know before they ask."""
    settings = server.settings
    try:
        table = server.voices()
    except ApiError:
        # The model is being loaded; the page asks again.
        table = None
    return {
        "loading": table is None,
        # Not those that stand for files: nobody learns where they are.
        "own": list(table.own) if table else [],
        "default": table.default if table and table.default in table.own else None,
        "aliases": {name: own for name, own in table.aliases.items() if own in table.own} if table else {},
        "max_input": settings.max_input,
        "mode": settings.mode,
        "formats": list(ENCODERS),
        "allow_upload": settings.uploads is not None,
        "sample_rate": server.engine.sample_rate or 24_000,
    }


async def encode_samples(request: Request, format: str, sample_rate: int) -> Response:
    """Encode a body of 16-bit little-endian samples.

    Raises: ApiError 400 for a format that is unknown or cannot be had, 413 for more than two hours.
    """
    if format not in ENCODERS:
        raise ApiError(400, f"format is {format!r}; expected one of {', '.join(ENCODERS)}", "invalid_value", "format")
    encoder = make_encoder(format, sample_rate, "format")
    # A file beyond some MB: an hour of wav should not lie in memory.
    encoded = tempfile.SpooledTemporaryFile(max_size=16 << 20)  # noqa: SIM115
    pending, received = bytearray(), 0

    def flush(end: int) -> None:
        encoded.write(encoder.encode(np.frombuffer(bytes(pending[:end]), "<i2").astype(np.float32) / 32767))
        del pending[:end]

    try:
        async for piece in request.stream():
            received += len(piece)
            if received > MOST:
                raise ApiError(413, f"the sound is longer than {MOST // 2 // sample_rate} s", "body_too_large")
            pending += piece
            if len(pending) >= BLOCK:
                await asyncio.to_thread(flush, len(pending) // 2 * 2)
        flush(len(pending) // 2 * 2)
        encoded.write(encoder.finish())
    except BaseException:
        encoded.close()
        raise
    encoded.seek(0)

    def send() -> Iterator[bytes]:
        with encoded:
            while block := encoded.read(BLOCK):
                yield block

    return StreamingResponse(send(), media_type=encoder.media_type, headers={"Cache-Control": "no-store"})
