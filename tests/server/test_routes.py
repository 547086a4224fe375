"""Keys, voices that clients upload, health, metrics, the log."""

import io
import json
import logging
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest

from barkfast import Bark
from barkfast.errors import VoiceError
from barkfast.server.voices import make_table
from barkfast.watermark import detect
from server.running import TEXT, Running, variables

KEY = {"Authorization": "Bearer one"}


@pytest.fixture(scope="module")
def keyed() -> Iterator[Running]:
    with Running(Bark("demo", device="cpu"), api_keys=("one", "two"), served_names=("tts-1", "tts-1-hd")) as running:
        yield running


@pytest.fixture(scope="module")
def voice(demo: Running) -> bytes:
    """The file of a voice that fits the demo model."""
    return (Path(str(demo.bark.checkpoint.folder)) / "voices" / "calm.npz").read_bytes()


def upload(demo: Running, name: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{demo.url}/v1/audio/voices", params={"name": name}, content=content, timeout=60)


PATHS = ["/v1/models", "/v1/models/demo", "/v1/audio/models", "/v1/audio/voices"]


def test_keys_are_asked_for_after_the_body_was_understood(keyed: Running, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        assert keyed.post({"input": " "}).status_code == 400
        for headers in (
            {},
            {"Authorization": "Bearer three"},
            {"Authorization": "Basic one"},
            {"Authorization": "one"},
        ):
            response = keyed.post({"input": TEXT}, headers=headers)
            assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
        for key in ("one", "two"):
            response = keyed.post({"input": "Yes."}, headers={"Authorization": f"bearer {key}"})
            assert response.status_code == 200
    # Neither keys nor texts.
    assert "one" not in caplog.text.replace('"done"', "").replace("None", "") and TEXT not in caplog.text


def test_lists_ask_for_keys_and_health_does_not(keyed: Running):
    assert {keyed.get(path).status_code for path in PATHS} == {401}
    assert {keyed.get(path).status_code for path in ("/livez", "/readyz", "/health", "/metrics", "/version")} == {200}
    names = [model["id"] for model in keyed.get("/v1/models", headers=KEY).json()["data"]]
    assert names == ["tts-1", "tts-1-hd"]


def test_a_voice_is_uploaded_used_listed_and_deleted(demo: Running, voice: bytes):
    assert upload(demo, "mine", voice).json() == {"id": "mine", "object": "voice"}
    assert upload(demo, "mine", voice).status_code == 409
    assert upload(demo, "alloy", voice).status_code == 409
    assert "mine" in demo.get("/v1/audio/voices?format=names").json()["voices"]
    asked = {"input": "Yes.", "seed": 2, "response_format": "pcm"}
    assert demo.post({**asked, "voice": "mine"}).content == demo.post({**asked, "voice": "calm"}).content
    delete = f"{demo.url}/v1/audio/voices?name=mine"
    assert httpx.delete(delete).json() == {"id": "mine", "object": "voice", "deleted": True}
    assert httpx.delete(delete).status_code == 404
    assert demo.post({**asked, "voice": "mine"}).json()["error"]["code"] == "voice_not_found"


def archive(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def bad_voices() -> dict[str, bytes]:
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("../../semantic_prompt.npy", b"x")
    tokens = {"semantic_prompt": np.zeros(10, np.int64), "coarse_prompt": np.zeros((2, 15), np.int64)}
    return {
        "nothing": b"",
        "no archive": b"hello" * 100,
        "pickle": pickled.getvalue(),
        "path": zipped.getvalue(),
        "missing part": archive(**tokens),
        "floats": archive(**tokens, fine_prompt=np.zeros((8, 15), np.float32)),
        "another model": archive(
            **{**tokens, "semantic_prompt": np.full(10, 9999)}, fine_prompt=np.zeros((8, 15), int)
        ),
    }


@pytest.mark.parametrize("kind", bad_voices())
def test_what_is_no_voice_is_refused(demo: Running, kind: str):
    response = upload(demo, "bad", bad_voices()[kind])
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == "invalid_voice" and "/" not in error["message"].replace("../../", "")
    assert "bad" not in demo.get("/v1/audio/voices?format=names").json()["voices"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.npz", "x" * 65, "ä", "-a"])
def test_names_of_uploads_are_plain(demo: Running, voice: bytes, name: str):
    response = upload(demo, name, voice)
    assert response.status_code == 400 and response.json()["error"]["param"] == "name"


def test_a_voice_that_is_too_long_is_refused(demo: Running):
    assert upload(demo, "long", b"x" * ((8 << 20) + 1)).status_code == 413


def test_uploads_are_off_unless_allowed(keyed: Running, voice: bytes):
    for method in ("POST", "DELETE"):
        response = httpx.request(method, f"{keyed.url}/v1/audio/voices?name=x", headers=KEY)
        assert response.status_code == 403 and response.json()["error"]["code"] == "uploads_off"


@pytest.mark.parametrize(("aliases", "default"), [({"a": "nobody"}, None), ({}, "nobody"), ({"a": "x.npz"}, None)])
def test_an_alias_to_nowhere_is_refused(aliases: dict[str, str], default: str | None):
    with pytest.raises(VoiceError):
        make_table(["calm"], aliases, default)


def test_a_server_that_stops_or_has_no_memory_is_not_ready(demo: Running):
    assert demo.get("/readyz").json() == {"status": "ready"}
    speaker = demo.app.state.server.speaker
    with variables(speaker, draining=True):
        assert (demo.get("/readyz").status_code, demo.get("/health").status_code) == (503, 503)
        assert demo.get("/livez").status_code == 200
        response = demo.post({"input": TEXT})
        assert response.status_code == 503 and response.json()["error"]["code"] == "draining"
        assert int(response.headers["retry-after"]) >= 1
    demo.engine.free_bytes = 1000
    assert demo.get("/readyz").json() == {"status": "no memory"}
    del demo.engine.free_bytes
    assert demo.get("/readyz").status_code == 200


def test_metrics_count_what_was_asked(demo: Running):
    def value(name: str) -> float:
        page = demo.get("/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))

    demo.wait_idle()
    before = {name: value(name) for name in COUNTED}
    demo.post({"input": "Yes."})
    demo.wait_idle()
    assert {name: value(name) - before[name] for name in COUNTED} == dict.fromkeys(COUNTED, 1)
    assert value("barkfast_audio_seconds_total") > 0
    assert value("barkfast_requests_running") == value("barkfast_requests_waiting") == value("barkfast_batch_size") == 0


COUNTED = (
    'barkfast_requests_total{outcome="done"}',
    "barkfast_queue_wait_seconds_count",
    "barkfast_time_to_first_audio_seconds_count",
    "barkfast_request_seconds_count",
    "barkfast_real_time_factor_count",
    "barkfast_audio_underrun_seconds_count",
    'barkfast_stage_seconds_count{stage="coarse"}',
)


def test_the_log_has_a_line_for_each_request(demo: Running, caplog: pytest.LogCaptureFixture):
    demo.wait_idle()
    with caplog.at_level(logging.INFO, "barkfast.server.requests"):
        number = demo.post({"input": "Yes.", "voice": "nova"}).headers["x-request-id"]
        demo.post({"input": ""})
        demo.wait_idle()
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "barkfast.server.requests"]
    assert [line["outcome"] for line in lines] == ["done", "invalid"]
    line = lines[0]
    assert line["request"] == number and line["characters"] == 4 and line["audio_s"] > 0 and "text" not in line
    assert {"voice", "seconds", "queue_wait_s", "first_audio_s", "real_time_factor", "underrun_s"} <= set(line)
    with variables(demo.app.state.server.speaker, log_texts=True), caplog.at_level(logging.INFO):
        demo.post({"input": "Yes."})
        demo.wait_idle()
    assert json.loads(caplog.records[-1].getMessage())["text"] == "Yes."


@pytest.mark.skipif(find_spec("perth") is None, reason="resemble-perth is not installed (the extra `watermark`)")
def test_with_watermark_all_sound_is_marked(demo: Running):
    surest = []
    for marked in (False, True):
        with variables(demo.app.state.server.speaker, watermark=marked):
            data = demo.post({"input": "Hello there, my friend.", "seed": 1, "response_format": "pcm"}).content
        samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        surest.append(detect(samples, 24000))
    assert surest[0] < 0.5 < surest[1]


def test_the_page_and_the_description_are_there(demo: Running):
    assert "barkfast" in demo.get("/").text and demo.get("/docs").status_code == 200
    voices = demo.get("/openapi.json").json()["paths"]["/v1/audio/speech"]["post"]["requestBody"]
    assert "anna" in json.dumps(voices)
