"""OpenAI's own client against the server."""

import base64
import json
from collections.abc import Iterator

import pytest

openai = pytest.importorskip("openai", reason="openai is not installed (the extra `test`)")

from barkfast.server import app as application  # noqa: E402
from barkfast.server.errors import ApiError  # noqa: E402
from server.running import MORE, TEXT, Running, decode, variables  # noqa: E402

FORMATS = ("mp3", "opus", "flac", "wav", "pcm")
SEED = {"extra_body": {"seed": 3}}


@pytest.fixture(scope="module")
def client(demo: Running) -> Iterator["openai.OpenAI"]:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture(scope="module")
def whole(client: "openai.OpenAI") -> dict[str, bytes]:
    """Every format of one request."""
    say = client.audio.speech.create
    return {f: say(model="tts-1", voice="alloy", input=TEXT, response_format=f, **SEED).content for f in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_has_the_bytes_of_the_whole(client: "openai.OpenAI", whole: dict[str, bytes], format: str):
    say = client.audio.speech.with_streaming_response.create
    with say(model="tts-1", voice="alloy", input=TEXT, response_format=format, **SEED) as response:
        pieces = list(response.iter_bytes())
    assert b"".join(pieces) == whole[format]
    # The last word is in it.
    n = len(decode(whole["pcm"], "pcm"))
    assert 0 <= len(decode(whole[format], format, n)) - n <= MORE.get(format, 0)


def test_the_default_is_mp3_with_the_headers_that_clients_read(client: "openai.OpenAI", whole: dict[str, bytes]):
    response = client.audio.speech.with_raw_response.create(model="tts-1", voice="alloy", input=TEXT, **SEED)
    headers = response.headers
    assert response.content == whole["mp3"]
    assert headers["content-type"] == "audio/mpeg"
    assert headers["x-seed"] == "3" and headers["x-sample-rate"] == "24000" and len(headers["x-request-id"]) == 32
    assert headers["x-accel-buffering"] == "no" and headers["cache-control"] == "no-store"


def test_the_seed_of_a_request_without_one_repeats_it(client: "openai.OpenAI"):
    say = client.audio.speech.with_raw_response.create
    first = say(model="x", voice="nova", input="Yes.", response_format="pcm")
    again = say(
        model="x", voice="nova", input="Yes.", response_format="pcm", extra_body={"seed": int(first.headers["x-seed"])}
    )
    assert first.content == again.content


def test_events_hold_the_same_bytes_the_sentences_and_the_usage(client: "openai.OpenAI", demo: Running):
    asked = {"input": "Apples. Pears.", "seed": 3, "stream_format": "sse", "timestamps": True}
    response = demo.post(asked)
    assert response.headers["content-type"] == "text/event-stream"
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line[:5] == "data:"]
    kinds = [event["type"] for event in events]
    assert kinds[-1] == "speech.audio.done" and kinds.count("speech.audio.done") == 1
    sound = b"".join(base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")
    assert sound == demo.post({"input": "Apples. Pears.", "seed": 3}).content
    sentences = [event for event in events if event["type"] == "speech.sentence"]
    assert [sentence["text"] for sentence in sentences] == ["Apples.", "Pears."]
    assert sentences[0]["start_s"] == 0 < sentences[1]["start_s"] < len(decode(sound, "mp3")) / 24_000
    usage = events[-1]["usage"]
    assert usage["input_tokens"] == 2 and usage["total_tokens"] == 2 + usage["output_tokens"]
    assert "speech.sentence" not in demo.post({**asked, "timestamps": None}).text


def test_the_lists_of_models_are_read(client: "openai.OpenAI"):
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "InternalServerError",
}


@pytest.mark.parametrize("status", CLASSES)
def test_each_status_is_a_class_of_the_client(client: "openai.OpenAI", status: int):
    def refuse(*_: object) -> None:
        raise ApiError(status, "no", "code", "voice")

    with variables(application, parse=refuse), pytest.raises(getattr(openai, CLASSES[status])) as caught:
        client.with_options(max_retries=0).audio.speech.create(model="x", voice="alloy", input="x")
    assert caught.value.status_code == status
    assert caught.value.body["param"] == "voice" and caught.value.body["code"] == "code"


def test_the_client_tries_again_after_a_full_queue(client: "openai.OpenAI"):
    parse, tries = application.parse, []

    def refuse_once(*arguments: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise ApiError(429, "full", "queue_full", retry_after=0.1)
        return parse(*arguments)

    with variables(application, parse=refuse_once):
        assert client.audio.speech.create(model="x", voice="alloy", input="Yes.").content
    assert len(tries) == 2
