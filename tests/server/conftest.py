"""One server for each file, with the demo voice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed (the extra `serve`)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (the extra `serve`)")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed (the extra `serve`)")
pytest.importorskip("httpx", reason="httpx is not installed (the extra `test`)")

from barkfast import Bark  # noqa: E402
from server.running import Running  # noqa: E402


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    uploads: Path = tmp_path_factory.mktemp("voices")
    with Running(Bark("demo", device="cpu"), voice_aliases={"anna": "nova"}, uploads=uploads / "kept") as running:
        yield running
