"""What the tests of the page share: answers without an engine, metrics, clients of the real server."""

import base64
import http.client
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tools.browser import Server

RATE = 24_000


def expect(locator: Any) -> Any:
    """Playwright's assertions that wait; imported here, since Playwright may be absent."""
    from playwright.sync_api import expect

    return expect(locator)


def event(**content: Any) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content)}\n\n"


def answer(text: str, samples: bytes = b"\1\0" * 2400) -> str:
    """What the server sends for a text, without an engine: a tenth of a second of sound."""
    return (
        event(type="speech.sentence", text=text, start_s=0.0)
        + event(type="speech.audio.delta", audio=base64.b64encode(samples).decode())
        + event(type="speech.audio.done", usage={})
    )


def fake_speech(page: Any, asked: list[dict[str, Any]], most: int | None = None) -> None:
    """Answer the page's requests for speech without the server; the connection fails after `most` of them."""

    def reply(route: Any) -> None:
        if most is not None and len(asked) >= most:
            route.abort()
            return
        body = route.request.post_data_json
        asked.append(body)
        route.fulfill(status=200, content_type="text/event-stream", body=answer(body["input"]))

    page.route("**/v1/audio/speech", reply)


def ask(server: Server, **fields: Any) -> np.ndarray:
    """(n,) int16 samples of the same route that the page calls."""
    body = json.dumps({"response_format": "pcm", "mode": "low_latency"} | fields).encode()
    request = urllib.request.Request(server.url + "v1/audio/speech", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return np.frombuffer(response.read(), "<i2")


def read_metrics(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(server.url + "metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def wait_for_metrics(
    server: Server, holds: Callable[[dict[str, float]], bool], seconds: float = 10.0
) -> dict[str, float]:
    """The metrics once they are as they should be, else the last ones."""
    end = time.monotonic() + seconds
    while not holds(metrics := read_metrics(server)) and time.monotonic() < end:
        time.sleep(0.1)
    return metrics


def open_stream(server: Server, text: str) -> http.client.HTTPConnection:
    """A client that asks for speech and reads nothing of it."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    body = json.dumps({"input": text, "response_format": "pcm"})
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    return connection
