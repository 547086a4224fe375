"""A server with the demo voice and a Chromium that shows its page, for tests and screenshots."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SERVE = "import sys; from barkfast.cli import main; sys.exit(main())"
# Seconds until a model is loaded on a busy machine.
PATIENCE_S = 120.0
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
)


def find_chromium() -> str | None:
    """The path of an installed Chromium; None without one. Playwright's own is never fetched."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


class Server:
    """`barkfast serve` in a process of its own, at a free port.

    Args:
        options: further ones of the command.
        variables: of its environment.

    Attributes:
        process: that runs it.
        url: where it listens, with a slash at the end.
        lines: what it has printed.
    """

    def __init__(self, *options: str, **variables: str) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])
        # Threads that spin while they wait make so small a model slow on a busy machine.
        environment = {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "passive", **variables}
        command = [sys.executable, "-c", SERVE, "serve", "--model", "demo", "--port", "0", *options]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            if not self._ready.wait(PATIENCE_S) or self.process.poll() is not None:
                raise RuntimeError("the server did not start:\n" + "".join(self.lines))
            found = re.search(r"http://[\w.:]+", "".join(self.lines))
            assert found is not None
            self.url = found.group() + "/"
        except BaseException:
            self.stop()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if "v1/audio/speech" in line:
                self._ready.set()
        # Also where it has ended before.
        self._ready.set()

    def stop(self) -> None:
        """End it. May be called again."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """A Playwright browser. Raises: RuntimeError without a Chromium."""
    from playwright.sync_api import sync_playwright

    executable = find_chromium()
    if executable is None:
        raise RuntimeError("there is no Chromium; run: apt-get install --no-install-recommends chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()
