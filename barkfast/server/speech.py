"""What a request for speech asks for: the fields of OpenAI's route and ours, checked one by one."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from barkfast.checks import check_seconds
from barkfast.errors import InputError
from barkfast.longform.sentences import check_language
from barkfast.options import EngineStream
from barkfast.server.encoders import ENCODERS
from barkfast.server.errors import ApiError
from barkfast.server.stretch import FASTEST, SLOWEST
from barkfast.server.voices import VoiceTable

# Fields of ours that `Engine.stream` takes under the same name.
OPTIONS = (
    *("seed", "language", "text_temp", "waveform_temp", "fine_temp", "top_k", "top_p", "mode", "deadline_s"),
    *("priority", "max_duration_s"),
)
# As many bytes of JSON as the longest text may need in escaped characters, and some for the other fields.
BYTES_PER_CHARACTER, OTHER_BYTES = 12, 16_384


@dataclass(frozen=True)
class Asked:
    """A request that was understood.

    Args:
        text: to be spoken.
        voice: as the engine takes it.
        format: one of encoders.ENCODERS.
        events: whether it is sent as server-sent events.
        timestamps: whether there is an event for each sentence.
        progress: whether there are events for the place in the queue, the stages, the voice and the times.
        ignored: fields that were understood and have no effect.
        options: further arguments of `Engine.stream`.
    """

    text: str
    voice: str | None
    format: str = "mp3"
    speed: float = 1.0
    events: bool = False
    timestamps: bool = False
    progress: bool = False
    ignored: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def parse(body: bytes, voices: VoiceTable, max_input: int, mode: str) -> Asked:
    """Understand a body.

    Args:
        max_input: characters of the text at most.
        mode: of the stream, unless the request names one.

    Raises: ApiError, always 400, with the field that is wrong.
    """
    asked = _read_object(body)
    text = check_text(asked.get("input"), max_input)
    voice_field = "voice" if asked.get("voice") is not None else "speaker"
    voice = _voice_name(asked.get(voice_field), voice_field)
    model = _optional(asked, "model", str, "a string")
    if voice is None and model is not None and model in voices.names():
        # Some clients send the voice in the place of the model.
        voice = model
    options = {name: asked[name] for name in OPTIONS if asked.get(name) is not None}
    for name, value in options.items():
        _check_option(name, value)
    normalized = _optional(asked, "normalize", bool, "true or false")
    events = _choice(asked, "stream_format", ("audio", "sse"), "audio") == "sse"
    further = {name: bool(_optional(asked, name, bool, "true or false")) for name in ("timestamps", "progress")}
    for name, wanted in further.items():
        if wanted and not events:
            raise ApiError(400, f'{name}: these are events; send "stream_format": "sse"', "invalid_value", name)
    return Asked(
        text=text,
        voice=voices.resolve(voice, voice_field),
        format=_choice(asked, "response_format", tuple(ENCODERS), "mp3", "unsupported_format"),
        speed=_speed(asked),
        events=events,
        **further,
        ignored=("instructions",) if asked.get("instructions") not in (None, "", "None") else (),
        options={"mode": mode, "markup": "plain" if normalized is False else "markdown"} | options,
    )


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(asked, dict):
        raise ApiError(400, f"the body is a JSON {type(asked).__name__}; expected an object", "invalid_json")
    return asked


def check_text(value: Any, most: int) -> str:
    """The text, of up to `most` characters. Raises: ApiError 400."""
    if value is None:
        raise ApiError(400, "input is missing; expected the text to be spoken", "missing_input", "input")
    if not isinstance(value, str):
        raise ApiError(400, f"input is {_show(value)}; expected a string", "invalid_type", "input")
    if len(value) > most:
        raise ApiError(
            400, f"input has {len(value)} characters; this server takes {most} at most", "input_too_long", "input"
        )
    if not value.strip():
        raise ApiError(400, "input has nothing to be spoken; expected some text", "empty_input", "input")
    return value


def _voice_name(value: Any, name: str) -> str | None:
    if isinstance(value, dict):
        value = value.get("id")
    if value is None or isinstance(value, str):
        return value or None
    raise ApiError(400, f"{name} is {_show(value)}; expected a name, or an object with an id", "invalid_type", name)


def _optional(asked: Mapping[str, Any], name: str, kind: type, expected: str) -> Any:
    value = asked.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise ApiError(400, f"{name} is {_show(value)}; expected {expected}", "invalid_type", name)


def _choice(
    asked: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str, code: str = "invalid_value"
) -> str:
    value = asked.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value not in choices:
        raise ApiError(400, f"{name} is {_show(value)}; expected one of {', '.join(choices)}", code, name)
    return value


def _speed(asked: Mapping[str, Any]) -> float:
    value = asked.get("speed")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not SLOWEST <= value <= FASTEST:
        raise ApiError(
            400, f"speed is {_show(value)}; expected a number from {SLOWEST:g} to {FASTEST:g}", "invalid_value", "speed"
        )
    return float(value)


def _check_option(name: str, value: Any) -> None:
    """As the engine checks it, alone, so that the error names the field."""
    make: Callable[..., Any] = EngineStream
    try:
        make("x", **{name: value})
        if name == "language":
            check_language(value)
        elif name == "deadline_s":
            check_seconds(name, value)
    except (InputError, TypeError) as error:
        raise ApiError(400, str(error), "invalid_value", name) from None


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]} ..."
