"""What /openapi.json says of routes whose bodies are read by hand, so that every error is OpenAI's."""

from typing import Any

from fastapi import FastAPI

from barkfast.longform.sentences import LANGUAGES
from barkfast.server.encoders import ENCODERS, available_formats
from barkfast.server.errors import TYPES
from barkfast.server.settings import Settings
from barkfast.server.stretch import FASTEST, SLOWEST
from barkfast.server.uploads import NAME_PATTERN

ERROR = {
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
EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}
WORDS = {
    400: "A field cannot be used; `param` names it.",
    401: "The API key is missing or wrong.",
    403: "The server does not take uploads.",
    404: "There is none of that name.",
    408: "The body did not come in time.",
    409: "There is a voice of that name.",
    413: "The body is too long.",
    429: "The queue is full; `Retry-After` says when to ask again.",
    503: "The engine is being loaded, is stopping, or has died.",
}
HEADERS = {
    "x-request-id": "The request's id, as in the server's log.",
    "x-seed": "With this as `seed` the same request gives the same sound.",
    "x-sample-rate": "Samples per second.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route."""
    return {
        status: {"description": WORDS[status], "content": {"application/json": {"schema": ERROR}}}
        for status in statuses
    }


def binary(media_types: list[str]) -> dict[str, Any]:
    """Content of bytes."""
    return {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}


def _with_events(name: str) -> dict[str, Any]:
    """That a field goes with events only."""
    events = {"properties": {"stream_format": {"const": "sse"}}, "required": ["stream_format"]}
    return {"if": {"properties": {name: {"const": True}}, "required": [name]}, "then": events}


def speech_schema(settings: Settings, voices: list[str] | None) -> dict[str, Any]:
    """The fields of POST /v1/audio/speech; unknown ones are ignored, and null is absent.

    Args:
        voices: their names; None while they are not known.
    """

    def maybe(**schema: Any) -> dict[str, Any]:
        return {"anyOf": [schema, {"type": "null"}]}

    name: dict[str, Any] = {"type": "string"} | ({"enum": voices} if voices else {})
    voice = {"anyOf": [name, {"type": "object", "properties": {"id": name}}, {"type": "null"}]}
    temperature = maybe(type="number", minimum=0)
    return {
        "type": "object",
        "properties": {
            "input": {
                "type": "string",
                "minLength": 1,
                "maxLength": settings.max_input,
                "description": "The text; it has at least one letter or digit.",
            },
            "model": maybe(type="string"),
            "voice": voice,
            "speaker": voice,
            "response_format": maybe(enum=available_formats(), default="mp3"),
            "speed": maybe(type="number", minimum=SLOWEST, maximum=FASTEST, default=1.0),
            "stream_format": maybe(enum=["audio", "sse"], default="audio"),
            "timestamps": maybe(type="boolean", description="With sse: an event for each sentence, with its start."),
            "progress": maybe(
                type="boolean", description="With sse: events for the place in the queue, the stages and the times."
            ),
            "instructions": {"description": "Ignored, and named in x-ignored."},
            "seed": maybe(type="integer", minimum=-(2**63), maximum=2**64 - 1),
            "language": maybe(enum=[*LANGUAGES]),
            "text_temp": temperature,
            "waveform_temp": temperature,
            "fine_temp": temperature,
            "top_k": maybe(type="integer", minimum=1),
            "top_p": maybe(type="number", exclusiveMinimum=0, maximum=1),
            "mode": maybe(enum=["low_latency", "exact"], default=settings.mode),
            "deadline_s": maybe(type="number", exclusiveMinimum=0),
            "priority": maybe(type="integer"),
            "max_duration_s": maybe(type="number", exclusiveMinimum=0),
            "normalize": maybe(type="boolean", default=True, description="Markdown and URLs as people read them."),
        },
        "required": ["input"],
        "allOf": [_with_events("timestamps"), _with_events("progress")],
    }


SPEECH: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The sound, while it is generated.",
            "content": {
                **binary([kind.media_type for kind in ENCODERS.values()]),
                "text/event-stream": {"schema": EVENT},
            },
            "headers": {name: {"schema": {"type": "string"}, "description": text} for name, text in HEADERS.items()},
        },
        **errors(400, 401, 408, 413, 429, 503),
    }
}
UPLOAD: dict[str, Any] = {
    "responses": errors(400, 401, 403, 408, 409, 413, 503),
    "openapi_extra": {"requestBody": {"required": True, "content": binary(["application/octet-stream"])}},
}
VOICE_NAME = {"pattern": NAME_PATTERN, "description": "Letters, digits, _ and -."}


def describe(app: FastAPI, settings: Settings, voices: list[str] | None) -> dict[str, Any]:
    """The document: FastAPI's, with what it cannot know, and without the status that is never sent."""
    document = FastAPI.openapi(app)
    schema = speech_schema(settings, voices)
    speech = document["paths"]["/v1/audio/speech"]["post"]
    speech["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    return document
