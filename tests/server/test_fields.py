"""Every field of a request: what is accepted, and the status and `param` of what is not."""

import json
from typing import Any

import httpx
import pytest

from barkfast.server.voices import OPENAI
from server.running import Running

WRONG = [
    ("input", None, "missing_input"),
    ("input", 5, "invalid_type"),
    ("input", "", "empty_input"),
    ("input", " \n", "empty_input"),
    ("input", "x" * 4097, "input_too_long"),
    ("input", "!?", "invalid_input"),
    ("input", "\ud800 yes", "invalid_input"),
    ("model", 5, "invalid_type"),
    ("voice", "bob", "voice_not_found"),
    ("voice", 5, "invalid_type"),
    ("voice", {"id": 5}, "invalid_type"),
    ("voice", "../../etc/passwd.npz", "voice_not_found"),
    ("speaker", "bob", "voice_not_found"),
    ("response_format", "ogg", "unsupported_format"),
    ("response_format", 5, "unsupported_format"),
    ("speed", 0.2, "invalid_value"),
    ("speed", 4.1, "invalid_value"),
    ("speed", "fast", "invalid_value"),
    ("speed", True, "invalid_value"),
    ("stream_format", "websocket", "invalid_value"),
    ("timestamps", True, "invalid_value"),
    ("timestamps", "yes", "invalid_type"),
    ("seed", -(2**63) - 1, "invalid_value"),
    ("seed", 1.5, "invalid_value"),
    ("seed", 2**64, "invalid_value"),
    ("language", "xx", "invalid_value"),
    ("language", 5, "invalid_value"),
    ("text_temp", -1, "invalid_value"),
    ("waveform_temp", "hot", "invalid_value"),
    ("fine_temp", -0.1, "invalid_value"),
    ("top_k", 0, "invalid_value"),
    ("top_p", 1.1, "invalid_value"),
    ("mode", "fast", "invalid_value"),
    ("deadline_s", -1, "invalid_value"),
    ("deadline_s", "soon", "invalid_value"),
    ("priority", 0.5, "invalid_value"),
    ("max_duration_s", 0, "invalid_value"),
    ("normalize", "yes", "invalid_type"),
]


@pytest.mark.parametrize(("field", "value", "code"), WRONG, ids=lambda value: repr(value)[:20])
def test_a_wrong_value_is_refused_by_name(demo: Running, field: str, value: Any, code: str):
    before = demo.counts().get("invalid", 0)
    # Not httpx's JSON: it refuses half a surrogate.
    response = demo.post(content=json.dumps({"input": "Hello.", field: value}).encode())
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (field, code)
    assert error["type"] == "invalid_request_error" and error["message"]
    assert demo.counts()["invalid"] == before + 1


@pytest.mark.parametrize("body", [b"", b"hello", b"[1]", b'"x"', b"\xff\xfe", b"[" * 60_000, b'{"input": 1e999'])
def test_a_body_that_is_no_object_is_refused(demo: Running, body: bytes):
    response = demo.post(content=body)
    assert response.status_code == 400 and response.json()["error"]["code"] == "invalid_json"


def test_a_body_that_is_too_long_is_refused_before_it_has_come(demo: Running):
    def pieces() -> Any:
        for _ in range(1000):
            yield b"x" * 100_000

    response = demo.post(content=pieces())
    assert response.status_code == 413 and response.json()["error"]["code"] == "body_too_large"


RIGHT: list[dict[str, Any]] = [
    {"model": "gpt-9", "voice": "ash", "speed": 1.0, "stream_format": "audio", "stream": True},
    {"voice": None, "speed": None, "response_format": None, "model": None, "seed": None},
    {"voice": {"id": "calm"}, "instructions": "None"},
    {"speaker": "lively", "unknown": {"deep": [1]}},
    {"model": "nova"},
    {"voice": "DEFAULT", "mode": "exact", "normalize": False, "language": "en"},
    {"text_temp": 0, "waveform_temp": 0.6, "fine_temp": 0.5, "top_k": 50, "top_p": 0.9, "seed": 5, "priority": -3},
    {"deadline_s": 1e300, "max_duration_s": 0.5},
]


@pytest.mark.parametrize("fields", RIGHT, ids=lambda fields: next(iter(fields)))
def test_what_clients_send_is_accepted(demo: Running, fields: dict[str, Any]):
    response = demo.post({"input": "Yes.", **fields})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "audio/mpeg" and len(response.content) > 500
    assert "x-ignored" not in response.headers


def test_what_has_no_effect_is_named(demo: Running):
    assert demo.post({"input": "Yes.", "instructions": "Whisper."}).headers["x-ignored"] == "instructions"


def test_every_voice_of_openai_is_one_of_the_model(demo: Running):
    listed = demo.get("/v1/audio/voices").json()
    names = [voice["id"] for voice in listed["voices"]]
    assert listed["data"] == listed["voices"] and listed["object"] == "list"
    assert {*OPENAI, "default", "anna", "calm", "plain", "lively"} == set(names)
    assert all({"id", "name", "voice_id", "language"} == set(voice) for voice in listed["voices"])
    assert demo.get("/audio/voices?format=names").json()["voices"] == names
    voices = demo.app.state.server.voices()
    assert {voices.resolve(name) for name in names} == {"calm", "plain", "lively"}
    # An alias speaks as the voice that it stands for.
    same = [demo.post({"input": "Yes.", "voice": voice, "seed": 1}).content for voice in ("anna", "nova")]
    assert same[0] == same[1]


def test_the_nearest_names_are_suggested(demo: Running):
    message = demo.post({"input": "Yes.", "voice": "aloy"}).json()["error"]["message"]
    assert "alloy" in message


@pytest.mark.parametrize("path", ["/v1/audio/speech/", "/audio/speech", "/audio/speech/"])
def test_other_spellings_of_the_route_work(demo: Running, path: str):
    assert httpx.post(demo.url + path, json={"input": " "}).json()["error"]["param"] == "input"


def test_other_paths_and_methods_get_errors_of_the_same_form(demo: Running):
    assert demo.get("/v1/nothing").json()["error"]["code"] == "not_found"
    response = demo.get("/v1/audio/speech")
    assert response.status_code == 405 and response.json()["error"]["code"] == "method_not_allowed"
    assert demo.get("/v1/audio/models").json() == {"models": [{"id": "demo"}]} == demo.get("/audio/models").json()


def test_markup_is_not_read_aloud(demo: Running):
    plain, marked, raw = (
        demo.post({"input": text, "seed": 1, "response_format": "pcm", "normalize": normalize}).content
        for text, normalize in (("Hello there.", None), ("[Hello](a.b) there.", None), ("[Hello](a.b) there.", False))
    )
    assert marked == plain != raw
