"""The page in a real browser, on a real server with the demo voice. One of each for a file."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tools.browser import Server, find_chromium, open_browser

SLOTS, QUEUE = 2, 18
# What the page plays: each buffer that it schedules, and how loud it is behind them.
RECORD = """
window.heard = [];
window.loudest = 0;
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, ...rest) {
  const samples = Array.from(this.buffer.getChannelData(0), (value) => Math.round(value * 32767));
  heard.push({ when, samples });
  return start.call(this, when, ...rest);
};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    if (!window.meter) {
      window.meter = this.context.createAnalyser();
      const values = new Float32Array(meter.fftSize);
      setInterval(() => {
        meter.getFloatTimeDomainData(values);
        window.loudest = Math.max(window.loudest, ...values);
      }, 50);
    }
    connect.call(this, meter);
  }
  return connect.call(this, target, ...rest);
};
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium; skips the tests where something for it is missing."""
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed (the extra `page`)")
    if find_chromium() is None:
        pytest.skip("there is no Chromium; run: apt-get install --no-install-recommends chromium")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (the extra `serve`)")
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that holds the address which the server has opened in a browser."""
    return tmp_path_factory.mktemp("opened") / "address"


@pytest.fixture(scope="module")
def server(browser: Any, opened: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with few slots, which takes voices."""
    show = opened.with_name("show")
    show.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    show.chmod(0o755)
    folder = tmp_path_factory.mktemp("voices")
    options = ("--slots", str(SLOTS), "--queue", str(QUEUE), "--allow-upload", "--upload-folder", str(folder))
    server = Server(*options, "--open", BROWSER=str(show))
    yield server
    server.stop()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page with its voices, in a profile of its own. No script may fail in it."""
    context = browser.new_context(accept_downloads=True, permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    context.add_init_script(RECORD)
    page = context.new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(server.url)
    page.locator("#about", has_text="demo").wait_for()
    yield page
    context.close()
    assert not failed
