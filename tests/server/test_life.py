"""`barkfast serve` from its start to its end: options, errors before anything is loaded, SIGTERM under load."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from barkfast.cli import build_parser, main
from barkfast.cli import serve as command
from barkfast.server import options, process
from barkfast.server.settings import parse_duration
from server.running import wait_for

ROOT = Path(__file__).resolve().parents[2]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a start that fails."""
    assert main(["serve", *arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "barkfast: error:" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of the engine must not be started."""

    def popen(*_: object, **__: object) -> None:
        raise AssertionError("the engine's process was started")

    monkeypatch.setattr(process.subprocess, "Popen", popen)


@pytest.mark.usefixtures("no_process")
class TestRefusedBeforeAProcessStarts:
    def test_a_port_in_use(self, capsys: pytest.CaptureFixture[str]):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert f"127.0.0.1:{port}" in error_of(capsys, "--port", port)
            assert port in error_of(capsys, "--port", "0", "--wyoming-port", port)

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("--port", "99999"), "99999"),
            (("--voice-alias", "bob"), "NAME=VOICE"),
            (("--mode", "fast"), "mode"),
            (("--max-input", "0"), "max_input"),
            (("--slots", "0"), "slots"),
            (("--queue", "-1"), "queue"),
        ],
    )
    def test_a_wrong_option(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str):
        assert named in error_of(capsys, *arguments)

    def test_a_missing_extra(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(command, "find_spec", lambda name: None if name in ("uvicorn", "wyoming") else 1)
        assert "pip install 'barkfast[serve]'" in error_of(capsys)
        monkeypatch.setattr(command, "find_spec", lambda name: None if name == "wyoming" else 1)
        assert "pip install 'barkfast[wyoming]'" in error_of(capsys, "--wyoming-port", "0")

    def test_uploads_without_a_folder(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("BARKFAST_CACHE", "off")
        assert "--upload-folder" in error_of(capsys, "--allow-upload")


def test_an_unknown_model_and_an_alias_to_nowhere_are_refused_before_loading(capsys: pytest.CaptureFixture[str]):
    arguments = ["--port", "0", "--model", "demo", "--voice-alias", "a=calm", "b=nobody"]
    assert "--voice-alias b names 'nobody'" in error_of(capsys, *arguments)
    assert "no-such-model" in error_of(capsys, "--port", "0", "--model", "./no-such-model", "--host", "0.0.0.0")


def test_a_server_without_a_key_for_everybody_warns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    async def serve(*_: object) -> None:
        return None

    monkeypatch.setattr("barkfast.server.run.serve", serve)
    assert main(["serve", "--port", "0", "--host", "0.0.0.0", "--model", "demo"]) == 0
    assert "warning" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--host", "0.0.0.0", "--model", "demo", "--api-key", "secret"]) == 0
    output = capsys.readouterr().err
    assert "warning" not in output and "secret" not in output


def test_every_option_is_a_variable_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    given = {
        "PORT": "81",
        "SLOTS": "3",
        "IDLE_UNLOAD": "15m",
        "DRAIN": "2h",
        "API_KEY": "one,two",
        "VOICE_ALIAS": "a=b,c=d",
        "ALLOW_UPLOAD": "1",
        "NO_WEB": "no",
    }
    monkeypatch.setattr(options, "ENVIRONMENT", {f"BARKFAST_SERVE_{name}": value for name, value in given.items()})
    args = build_parser().parse_args(["serve", "--slots", "4", "--voice-alias", "x=y", "--voice-alias", "z=y"])
    assert (args.port, args.slots, args.idle_unload, args.drain) == (81, 4, 900.0, 7200.0)
    assert (args.allow_upload, args.no_web) == (True, False)
    assert options.read_list(args, "api_key") == ("one", "two")
    assert options.read_list(args, "voice_alias") == ("x=y", "z=y")
    # The help says nothing of the keys.
    with pytest.raises(SystemExit):
        build_parser().parse_args(["serve", "--help"])
    assert "one" not in re.findall(r"\w+", capsys.readouterr().out.partition("--api-key KEY")[2].partition("--")[0])
    options.ENVIRONMENT["BARKFAST_SERVE_PORT"] = "many"
    assert main(["serve"]) == 2
    assert "many" in capsys.readouterr().err
    assert main(["voices", "--help"]) == 0


@pytest.mark.parametrize("text", ["", "x", "0", "-1s", "1d", "inf", "nan"])
def test_other_lengths_of_time_are_refused(text: str):
    with pytest.raises(ValueError):
        parse_duration(text)


def test_the_address_that_is_shown_can_be_called(capsys: pytest.CaptureFixture[str]):
    about = SimpleNamespace(model="demo", engine="cpu", dtype="bfloat16", slots=8, voices=("calm",))
    command._report(about, "http://127.0.0.1:1", True)
    assert "curl http://127.0.0.1:1/v1/audio/speech" in (shown := capsys.readouterr().err)
    assert "Bearer KEY" in shown and "1 voice" in shown


def test_a_stop_under_load_loses_no_accepted_request(tmp_path: Path):
    """One real server: its report, its log, a drain, status 0, and no process is left."""
    arguments = ["--model", "demo", "--port", "0", "--slots", "2", "--drain", "120s", "--device", "cpu"]
    log = tmp_path / "log"
    with open(log, "w") as file:
        server = subprocess.Popen(
            [sys.executable, "-c", "from barkfast.cli import main; raise SystemExit(main())", "serve", *arguments],
            stderr=file,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])},
        )
    try:
        wait_for(lambda: "ready" in log.read_text() or server.poll() is not None, 180)
        report = log.read_text()
        assert "demo, cpu engine" in report and "2 slots, 3 voices" in report and "warning" not in report
        url = re.search(r"curl (http://\S+)/v1", report).group(1)
        (child,) = children_of(server.pid)

        def ask(seed: int) -> tuple[int, bytes]:
            body = {"input": "Hello there. How are you?", "seed": seed % 2, "response_format": "pcm"}
            response = httpx.post(f"{url}/v1/audio/speech", json=body, timeout=180)
            return response.status_code, response.content

        with ThreadPoolExecutor(8) as threads:
            answers = [threads.submit(ask, seed) for seed in range(8)]
            wait_for(lambda: accepted(httpx.get(f"{url}/metrics").text) == 8)
            server.send_signal(signal.SIGTERM)
            wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 503)
            refused = httpx.post(f"{url}/v1/audio/speech", json={"input": "Yes."}, timeout=60)
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
            results = [answer.result() for answer in answers]
        assert {status for status, _ in results} == {200}
        # Whole: the same sound for the same seed, whoever was beside it.
        assert len({sound for _, sound in results}) == 2
        assert server.wait(60) == 0
        assert "How are you" not in log.read_text()
        lines = [json.loads(line[line.index("{") :]) for line in log.read_text().splitlines() if '"outcome"' in line]
        assert [line["outcome"] for line in lines].count("done") == 8
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def accepted(metrics: str) -> float:
    """Requests that are open or done."""
    names = ("barkfast_requests_running ", "barkfast_requests_waiting ", 'barkfast_requests_total{outcome="done"}')
    return sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(names))


def children_of(pid: int) -> list[int]:
    """The ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
