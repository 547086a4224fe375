"""The examples: all compile and import existing names; those whose packages are installed run with the demo model."""

import ast
import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from barkfast import Bark
from barkfast.audio import stream_header, to_pcm16

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
# Modules that an example needs besides barkfast's own dependencies.
FOREIGN = {"fastapi_server": ("fastapi",), "grpc_server": ("grpc",), "ray_serve": ("ray", "starlette")}
TEXT = "Hello there. And now the second sentence."
SHORT = {"max_duration_s": 0.3}


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example; skip the test if a package that the example needs is not installed."""
    missing = [module for module in FOREIGN.get(name, ()) if find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: {name}.py was compiled, and not run")
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_they_are_all_there() -> None:
    assert {path.stem for path in EXAMPLES} == {*FOREIGN, "batch", "stream_to_file"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_it_compiles_and_takes_only_what_barkfast_has(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=path.name)
    compile(tree, path.name, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "barkfast":
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{node.module} has no {missing}"


def test_the_page_about_embedding_names_every_example() -> None:
    page = (FOLDER.parent / "docs" / "embedding.md").read_text(encoding="utf-8")
    assert not [path.name for path in EXAMPLES if f"examples/{path.name}" not in page]


def test_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paths = load("batch", monkeypatch).main(
        ["--folder", str(tmp_path), "--max-duration", "0.3", "Hello.", "", "Again."]
    )
    assert [path.name for path in paths] == ["0.wav", "2.wav"]
    assert all(soundfile.info(path).duration == pytest.approx(0.3, abs=0.05) for path in paths)
    assert "1: text is ''" in capsys.readouterr().out


def test_stream_to_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example, path = load("stream_to_file", monkeypatch), tmp_path / "a.wav"
    samples = example.main(["--seed", "1", "--max-duration", "0.3", "-o", str(path), "Hello there."])
    assert soundfile.info(path).frames == samples == len(speak_alone("Hello there.", 1))
    assert "first sound after" in capsys.readouterr().out


def speak_alone(text: str, seed: int) -> np.ndarray:
    return Bark("random:demo", device="cpu").generate(text, seed=seed, **SHORT).audio


def stream_alone(text: str, seed: int) -> np.ndarray:
    return np.concatenate(list(Bark("random:demo", device="cpu").stream(text, seed=seed, **SHORT)))


async def call_app(app: Any, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Send one request to an ASGI application; return the status and the whole body."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http", "root_path": ""}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": content, "more_body": False})
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, inbox.get, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_fastapi_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_MODEL", "random:demo")
    example = load("fastapi_server", monkeypatch)

    async def main() -> None:
        async with example.lifespan(example.app):
            asked = {"text": "Hello there.", "seed": 1, **SHORT}
            status, wav = await call_app(example.app, "POST", "/speech", asked)
            assert status == 200
            rate = example.app.state.engine.sample_rate
            assert wav == stream_header(rate) + to_pcm16(speak_alone("Hello there.", 1))
            wav = (await call_app(example.app, "POST", "/speech", asked | {"text": TEXT}))[1]
            assert wav == stream_header(rate) + to_pcm16(stream_alone(TEXT, 1))
            for wrong, expected in (
                ({"text": ""}, 400),
                ({"text": "..."}, 400),
                ({"text": "a", "voice": "v2/xx_speaker_0"}, 400),
                ({"text": "a" * 5000}, 422),
                ({}, 422),
            ):
                assert (await call_app(example.app, "POST", "/speech", wrong))[0] == expected
            status, body = await call_app(example.app, "GET", "/health")
            assert (status, json.loads(body)) == (200, {"healthy": True, "accepting": True})
            assert json.loads((await call_app(example.app, "GET", "/stats"))[1])["done"] == 3

    asyncio.run(main())


def test_grpc_server(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("grpc_server", monkeypatch)
    import grpc.aio

    async def main() -> None:
        stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(example.serve("random:demo", 0, stop, started))
        port = await asyncio.wait_for(started, 120)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            speak = channel.unary_stream(f"/{example.SERVICE}/{example.METHOD}")

            async def ask(asked: Any) -> bytes:
                return b"".join([message async for message in speak(json.dumps(asked).encode(), timeout=120)])

            assert await ask({"text": "Hello there.", "seed": 1, **SHORT}) == to_pcm16(speak_alone("Hello there.", 1))
            assert await ask({"text": TEXT, "seed": 1, **SHORT}) == to_pcm16(stream_alone(TEXT, 1))
            for wrong in ({"text": ""}, {"text": "a" * 5000}, {"speed": 2}, []):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(wrong)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        stop.set()
        await serving

    asyncio.run(main())


def test_ray_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_MODEL", "random:demo")
    example = load("ray_serve", monkeypatch)
    # The class itself, as a replica would call it; without a cluster.
    replica = example.Speech.func_or_class()
    from starlette.requests import Request

    def asks(body: Any) -> Request:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)

    async def main() -> None:
        replica.check_health()
        response = await replica(asks({"text": "Hello there.", "seed": 1, **SHORT}))
        pieces: AsyncIterator[bytes] = response.body_iterator
        wav = b"".join([piece async for piece in pieces])
        engine = await replica.engine()
        assert wav == stream_header(engine.sample_rate) + to_pcm16(speak_alone("Hello there.", 1))
        assert (await replica(asks({"speed": 2}))).status_code == 400
        for text in ("", "...", "a" * 5000):
            assert (await replica(asks({"text": text}))).status_code == 400
        replica.check_health()
        await engine.close()
        with pytest.raises(RuntimeError, match="has failed"):
            replica.check_health()

    asyncio.run(main())
