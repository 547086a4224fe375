"""What the page needs of the application, without a browser and without an engine."""

import base64
import io
import json
import re
from html import unescape
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="fastapi is not installed (the extra `serve`)")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed (the extra `serve`)")
pytest.importorskip("httpx", reason="httpx is not installed (the extra `test`)")

from fastapi.testclient import TestClient  # noqa: E402

from barkfast.config import Layout  # noqa: E402
from barkfast.errors import InputError  # noqa: E402
from barkfast.server import pages  # noqa: E402
from barkfast.server.app import create_app  # noqa: E402
from barkfast.server.metrics import Clock  # noqa: E402
from barkfast.server.progress import Progress  # noqa: E402
from barkfast.server.settings import About, Settings  # noqa: E402
from barkfast.server.speech import parse  # noqa: E402
from barkfast.server.voices import make_table  # noqa: E402
from barkfast.voices import check_voice  # noqa: E402

RATE = 24_000
ABOUT = About("demo", ("calm", "lively"), "cpu", "float32", 3)


def make_client(about: Any = ABOUT, **settings: Any) -> TestClient:
    engine = SimpleNamespace(sample_rate=RATE, accepting=True)
    return TestClient(create_app(engine, Settings(**settings), about))


def read_settings(page: str) -> dict[str, Any]:
    return json.loads(unescape(re.search(r'name="settings" content="([^"]*)"', page).group(1)))


def test_the_pages_and_their_files():
    client = make_client()
    for path in ("/", "/status"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        # Every file that it names is there, and nothing is fetched from elsewhere.
        names = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
        assert names and not [name for name in names if "//" in name]
        for name in names:
            if name.startswith("web/"):
                assert client.get("/" + name).status_code == 200
    kinds = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        assert client.get(f"/web/{name}").headers["content-type"].startswith(kind)


@pytest.mark.parametrize("path", ["index.html", "none.js", "..%2Fapp.py", "%2e%2e/app.py", "..\\app.py"])
def test_nothing_else_is_served(path: str):
    assert make_client().get(f"/web/{path}").status_code == 404


def test_modules_import_only_files_that_exist():
    folder = pages.files("barkfast.server") / "web"
    for script in folder.iterdir():
        for name in re.findall(r'from "(.*?)"', script.read_text(encoding="utf-8")):
            assert name.startswith("./") and (folder / name).is_file(), f"{script.name} imports {name}"


def test_without_the_page():
    client = make_client(web=False)
    for path in ("/", "/status", "/web/page.js"):
        assert client.get(path).status_code == 404


def test_the_page_knows_the_settings(tmp_path: Any):
    evil = '"><script>'
    settings = {"max_input": 100, "mode": "exact", "voice_aliases": {evil: "lively"}, "uploads": tmp_path}
    page = make_client(**settings).get("/").text
    assert evil not in page
    known = read_settings(page)
    assert (known["max_input"], known["mode"], known["allow_upload"]) == (100, "exact", True)
    assert known["aliases"][evil] == "lively" and known["own"] == ["calm", "lively"] and not known["loading"]
    # While the model is loaded there is a page, too.
    known = read_settings(make_client(about=lambda: None).get("/").text)
    assert known["loading"] and known["own"] == []


def test_the_page_does_not_say_where_voices_lie(tmp_path: Any):
    (tmp_path / "mine.npz").write_bytes(b"")
    assert str(tmp_path) not in make_client(uploads=tmp_path).get("/").text


def tone(seconds: float) -> np.ndarray:
    return (8000 * np.sin(np.arange(round(seconds * RATE)) * 0.1)).astype("<i2")


def test_samples_are_encoded_whole():
    client, samples = make_client(), tone(6.5)
    for name, start in (("wav", 44), ("pcm", 0)):
        content = client.post(f"/web/encode?format={name}", content=samples.tobytes()).content
        np.testing.assert_array_equal(np.frombuffer(content[start:], "<i2"), samples)
    for name in ("mp3", "opus"):
        answer = client.post(f"/web/encode?format={name}", content=samples.tobytes())
        sound, rate = soundfile.read(io.BytesIO(answer.content))
        assert len(sound) / rate == pytest.approx(6.5, abs=0.1)
    # Half a sample at the end is none.
    assert client.post("/web/encode?format=pcm", content=b"\1\0\2").content == b"\1\0"


def test_what_cannot_be_encoded(monkeypatch: pytest.MonkeyPatch):
    client = make_client(api_keys=("right",))
    key = {"Authorization": "Bearer right"}
    assert client.post("/web/encode", content=b"").status_code == 401
    answer = client.post("/web/encode?format=ogg", content=b"", headers=key)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "format"
    monkeypatch.setattr(pages, "MOST", 100)
    answer = client.post("/web/encode", content=bytes(102), headers=key)
    assert answer.status_code == 413

    def refuse(_: int) -> None:
        raise InputError("it needs an extra")

    monkeypatch.setitem(pages.ENCODERS, "aac", refuse)
    answer = client.post("/web/encode?format=aac", content=b"", headers=key)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "unsupported_format"


# --- progress


def test_progress_is_asked_for():
    voices = make_table(ABOUT.voices, {}, None)

    def ask(**fields: Any) -> Any:
        return parse(json.dumps({"input": "Hello."} | fields).encode(), voices, 100, "exact")

    assert not ask(stream_format="sse").progress
    assert ask(stream_format="sse", progress=True).progress
    for fields in ({"progress": True}, {"stream_format": "sse", "progress": "yes"}):
        with pytest.raises(Exception, match="progress") as error:
            ask(**fields)
        assert error.value.param == "progress" and error.value.status == 400


def test_progress_tells_what_has_changed_once():
    layout = Layout()
    frames = 75
    voice = {
        "semantic_prompt": np.arange(50, dtype=np.int32),
        "coarse_prompt": np.ones((2, frames), np.int32),
        "fine_prompt": np.full((8, frames), 1023, np.int32),
    }
    speech: Any = SimpleNamespace(n_ahead=4, timings={}, voice=None, clock=Clock(), queue_wait_s=None)
    speech.asked = SimpleNamespace(speed=2.0)
    progress = Progress(speech)
    assert progress.look() == [{"type": "speech.queued", "ahead": 4}]
    assert progress.look() == []
    speech.n_ahead = 0
    assert progress.look() == [{"type": "speech.queued", "ahead": 0}]
    speech.n_ahead, speech.queue_wait_s = None, 0.5
    speech.clock.receive(3.0)
    assert progress.look() == []
    speech.timings = {"semantic": 1.0}
    speech.voice = voice
    stages, kept = progress.look()
    assert stages == {"type": "speech.stages", "seconds": {"semantic": 1.0}}
    with np.load(io.BytesIO(base64.b64decode(kept["npz"]))) as archive:
        saved = dict(archive)
    check_voice(saved, layout)
    for name, tokens in voice.items():
        np.testing.assert_array_equal(saved[name], tokens)
    (times,) = progress.finish()
    # Of the sound as it is sent, which is twice as fast.
    assert times["type"] == "speech.times" and times["audio_s"] == 1.5 and times["queue_wait_s"] == 0.5
    assert 0 <= times["first_audio_s"] <= times["seconds"]
