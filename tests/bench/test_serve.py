"""`barkfast bench --serve` against small servers on real sockets."""

import itertools
import json
import re
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import barkfast
from barkfast.bench import plots, serve, serve_report
from barkfast.bench.bench import Interrupted
from barkfast.bench.serve import Load, Player, describe_load, describe_rate, find_fault, run_serve
from barkfast.cli import main
from barkfast.errors import InputError
from bench.sample import sample_environment
from bench.speech_server import Answer, serving

needs_httpx = pytest.mark.skipif(find_spec("httpx") is None, reason="httpx is not installed (the extra `bench`)")
SECOND = bytes(48_000)
SCHEMA = json.loads((Path(barkfast.__file__).parent / "bench" / "schema.json").read_text(encoding="utf-8"))


def problems(result: dict[str, Any]) -> list[str]:
    """The JSON paths at which a result violates the schema."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (the extra `test`)")
    validator = jsonschema.Draft202012Validator({"$ref": "#/$defs/serve", "$defs": SCHEMA["$defs"]})
    return sorted(error.json_path for error in validator.iter_errors(json.loads(json.dumps(result))))


def sample_row(status: str = "done", **values: Any) -> dict[str, Any]:
    row = {"at_s": 0.0, "characters": 30, "status": status, "reason": "" if status == "done" else "status 429: full"}
    row |= {"late_s": 0.001, "first_audio_s": 0.4, "whole_s": 2.0, "audio_s": 3.0, "underrun_s": 0.0, "end_s": 2.0}
    return row | values


def sample_serve(status: str = "complete") -> dict[str, Any]:
    """A made-up result: one rate in time, one with underruns and refusals, one with failures alone."""
    slow = sample_row(first_audio_s=1.5, underrun_s=0.8, whole_s=5.2, end_s=6.0, at_s=0.8)
    refused = sample_row("refused", first_audio_s=None, audio_s=0.0, whole_s=0.01)
    failed = sample_row("failed", reason="ReadError", first_audio_s=None, audio_s=0.0)
    rates = {0.5: [sample_row()] * 30, 2.0: [slow] * 40 + [refused] * 20, 8.0: [failed] * 3}
    return {
        "schema": 1,
        "kind": "serve",
        "status": status,
        "seconds": 200.0,
        "environment": sample_environment(),
        "case": describe_load(Load("http://speech.example:8000", rates=tuple(rates))),
        "rates": [describe_rate(rate, rows) for rate, rows in rates.items()],
    }


def at_once(_: int, __: dict[str, Any]) -> Answer:
    return 200, "audio/pcm", [SECOND]


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/audio/speech"])
def test_the_address_may_end_anywhere(ending: str):
    assert Load("http://127.0.0.1:8000" + ending).endpoint == "http://127.0.0.1:8000/v1/audio/speech"
    assert Load("https://proxy/bark" + ending).endpoint == "https://proxy/bark/v1/audio/speech"


def test_arrivals_are_poisson_and_texts_are_those_of_every_rate():
    load = Load("http://a", requests=4000, seed=3, words=(2, 30))
    slow, fast = load.plan(0.5), load.plan(4.0)
    assert [text for _, text in slow] == [text for _, text in fast]
    times = [at for at, _ in fast]
    gaps = [later - at for at, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    # 4000 gaps: the standard error of the mean, and about that of the deviation, is 1.6 %.
    assert mean == pytest.approx(0.25, rel=0.08) and deviation == pytest.approx(0.25, rel=0.12)
    lengths = {len(text.split()) for _, text in slow}
    assert (min(lengths), max(lengths)) == (2, 30)
    assert all(text.endswith(".") and text[0].isupper() for _, text in slow)
    assert load.plan(0.5) == slow != Load("http://a", requests=4000, seed=4, words=(2, 30)).plan(0.5)


def test_seconds_bound_the_arrivals():
    plan = Load("http://a", seconds=30.0).plan(2.0)
    assert plan[0][0] == 0 and all(at < 30 for at, _ in plan) and 30 < len(plan) < 100
    assert len(Load("http://a", seconds=1.0).plan(1e-3)) == 1


def test_a_player_lacks_what_came_too_late():
    player = Player()
    for now, n_bytes in [(5.0, 24_000), (5.25, 24_000), (6.75, 48_000), (7.0, 48_000)]:
        player.receive(now, n_bytes)
    # At 6.75 it needed 1.75 s and had 1.0 s.
    assert (player.first, player.underrun_s, player.audio_s) == (5.0, 0.75, 3.0)


@pytest.mark.parametrize(
    ("kind", "start", "n_bytes", "fault"),
    [
        ("audio/pcm", b"\0\0\0\0", 4, ""),
        ("application/octet-stream", b"\1\0", 2, ""),
        ("application/json; charset=utf-8", b"{}", 2, "the answer is application/json"),
        ("audio/mpeg", b"\xff\xfb", 2, "the answer is audio/mpeg"),
        ("audio/pcm", b"RIFF", 4, "a wav file"),
        ("audio/pcm", b"OggS", 4, "an? ogg file"),
        ("audio/pcm", b"", 0, "is empty"),
        ("audio/pcm", b"\0\0\0", 3, "half a sample"),
    ],
)
def test_what_is_no_sound_is_found(kind: str, start: bytes, n_bytes: int, fault: str):
    found = find_fault(kind, start, n_bytes)
    assert re.search(fault, found) if fault else found == ""


@needs_httpx
def test_times_are_those_of_the_server():
    def answer(number: int, body: dict[str, Any]) -> Answer:
        return 200, "audio/pcm", [0.3, SECOND[:24_000], 0.9, SECOND]

    with serving(answer) as (url, requests):
        load = Load(url, rates=(20.0,), requests=4, key="secret", voice="echo", model="bark", words=(3, 3), seed=7)
        result = run_serve(load, say=lambda line: None)
    assert problems(result) == [] and result["status"] == "complete"
    (rate,) = result["rates"]
    assert (rate["done"], rate["refused"], rate["failed"], rate["underruns"]) == (4, 0, 0, 4)
    # Later than the server said by as much as the machine is busy, never sooner.
    for row in rate["requests"]:
        assert 0.3 <= row["first_audio_s"] < 0.9 and row["audio_s"] == 1.5
        assert 0.35 <= row["underrun_s"] < 0.9 and 1.2 <= row["whole_s"] < 2.4
    # One after the other they would take 4.8 s.
    assert rate["seconds"] < 3 and rate["audio_s_per_s"] == pytest.approx(6 / rate["seconds"])
    asked = {"path": "/v1/audio/speech", "authorization": "Bearer secret", "model": "bark", "voice": "echo"}
    asked |= {"response_format": "pcm", "stream_format": "audio", "stream": True}
    assert all(asked.items() <= request.items() for request in requests)
    assert sorted(request["seed"] for request in requests[1:]) == [7, 8, 9, 10]
    assert "secret" not in json.dumps(result)


@needs_httpx
def test_refusals_and_failures_are_counted_apart():
    answers: list[Answer] = [
        (200, "audio/pcm", [SECOND]),
        (200, "audio/pcm", [SECOND]),
        (429, "application/json", [b'{"error": {"message": "the queue is full"}}']),
        (500, "text/plain", [b"out of memory"]),
        (200, "audio/pcm", [SECOND, None]),
        (200, "audio/pcm", [b"RIFF and more"]),
    ]
    with serving(lambda number, _: answers[number]) as (url, _):
        # Far enough apart to arrive in order.
        result = run_serve(Load(url, rates=(4.0,), requests=5, seed=1), say=lambda line: None)
    (rate,) = result["rates"]
    assert problems(result) == []
    assert (rate["done"], rate["refused"], rate["failed"]) == (1, 1, 3)
    assert rate["requests"][1]["reason"] == "status 429: the queue is full"
    reasons = " | ".join(rate["errors"])
    assert "status 500: out of memory" in reasons and "RemoteProtocolError" in reasons and "wav file" in reasons


@needs_httpx
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, "application/json", [b'{"error": {"message": "no such key"}}']), "status 401: no such key"),
        ((404, "text/html", [b"<h1>not found</h1>"]), "status 404: <h1>not found</h1>"),
        ((200, "audio/pcm", []), "the answer is empty"),
    ],
)
def test_a_server_that_does_not_speak_is_not_timed(
    answer: Answer, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    with serving(lambda *_: answer) as (url, requests):
        assert main(["bench", "--serve", url, "--requests", "3", "--json", str(tmp_path / "r.json")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.splitlines()[-1].startswith("barkfast: error: ")
    assert len(requests) == 1 and not (tmp_path / "r.json").exists()


@needs_httpx
def test_the_command_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `bench`)")
    with serving(at_once) as (url, requests):
        options = ["--rates", "10,40", "--requests", "3", "--words", "2-4", "--json", str(tmp_path)]
        assert main(["bench", "--serve", url, *options, "--plot", str(tmp_path / "pictures")]) == 0
    assert len(requests) == 7
    printed = capsys.readouterr().out
    (written,) = tmp_path.glob("serve-127-0-0-1-*.json")
    result = json.loads(written.read_text(encoding="utf-8"))
    assert problems(result) == [] and [rate["done"] for rate in result["rates"]] == [3, 3]
    assert "first audio s" in printed and f"{written}: the result, complete" in printed and "serve.png" in printed
    start = (tmp_path / "pictures" / "serve.png").read_bytes()[:24]
    assert struct.unpack(">I", start[16:20])[0] == 1200


@needs_httpx
def test_a_failure_shows_in_the_exit_status_and_a_refusal_does_not(capsys: pytest.CaptureFixture[str]):
    for status, expected in ((429, 0), (503, 1)):
        with serving(lambda n, _, s=status: at_once(0, {}) if n == 0 else (s, "text/plain", [b"no"])) as (url, _):
            assert main(["bench", "--serve", url, "--rates", "50", "--requests", "2"]) == expected
    assert "2 failed: status 503: no" in capsys.readouterr().out


@needs_httpx
def test_ctrl_c_keeps_the_rates_that_were_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    send, calls = serve.send_plan, []

    async def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return await send(*args)

    monkeypatch.setattr(serve, "send_plan", interrupted)
    with serving(at_once) as (url, _), pytest.raises(Interrupted) as caught:
        run_serve(Load(url, rates=(50.0, 60.0), requests=1), out=tmp_path / "r.json", say=lambda line: None)
    written = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert written == caught.value.result and written["status"] == "partial" and len(written["rates"]) == 1
    assert problems(written) == []


@needs_httpx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--serve", "127.0.0.1:8000"], "--serve: the server is '127.0.0.1:8000'; expected an address such as http://"),
        (["--serve", "http://a", "--rates", "1,x"], "--rates: expected numbers with commas between"),
        (["--serve", "http://a", "--rates", "0"], "--serve: a rate is 0.0; expected a positive number"),
        (["--serve", "http://a", "--requests", "0"], "--serve: requests is 0; expected at least 1 request"),
        (["--serve", "http://a", "--seconds", "-1"], "--serve: seconds is -1.0"),
        (["--serve", "http://a", "--words", "9-2"], "--serve: words is (9, 2)"),
        (["--serve", "http://a", "--words", "few"], "--words: expected two whole numbers"),
        (["--serve", "http://a", "--seed", "-1"], "--seed is -1"),
        (["--serve", "http://a", "--json", "absent/r.json"], "--json: cannot write"),
        (["--serve", "http://a", "--compare", "bark"], "--compare goes without --serve"),
        (["--serve", "http://a", "--dtype", "int8"], "--dtype goes without --serve"),
        (["--rates", "1"], "--rates goes only with --serve"),
        (["--key", "k"], "--key goes only with --serve"),
        # Of an address that nobody listens at.
        (["--serve", "http://127.0.0.1:9"], "does not speak: ConnectError"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", *options]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_without_httpx_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert main(["bench", "--serve", "http://127.0.0.1:8000"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'barkfast[bench]'" in error


def test_every_number_is_printed(capsys: pytest.CaptureFixture[str]):
    serve_report.print_serve(sample_serve("partial"))
    printed = capsys.readouterr().out
    assert "partial" in printed and "3 failed: ReadError" in printed
    rows = [line.split() for line in printed.splitlines() if line.strip()[:1].isdigit()]
    assert rows[0] == ["0.5", "30", "0", "0", "0.4", "0.4", "2", "2", "0", "0", "0", "45"]
    assert rows[1] == ["2", "40", "20", "0", "1.5", "1.5", "5.2", "5.2", "40", "0.8", "0.8", "20"]
    assert rows[2] == ["8", "0", "0", "3", *["-"] * 4, "0", "-", "-", "0"]


def test_a_client_that_is_too_slow_is_named(capsys: pytest.CaptureFixture[str]):
    result = sample_serve()
    result["rates"] = [describe_rate(9.0, [sample_row(late_s=0.4)])]
    serve_report.print_serve(result)
    assert "this client sent up to 0.4 s late" in capsys.readouterr().out


def test_the_schema_takes_results_and_finds_wrong_ones():
    result = sample_serve()
    assert problems(result) == [] == problems(sample_serve("partial"))
    for key in result:
        assert problems({k: v for k, v in result.items() if k != key}), key
    result["rates"][0]["requests"][0]["status"] = "late"
    assert problems(result)


def test_words_stay_apart_and_on_the_sheet():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `test`)")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    result = sample_serve()
    result["rates"] = [describe_rate(rate, [sample_row()] * 30) for rate in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)]
    for one in (sample_serve(), result):
        with matplotlib.rc_context(plots.STYLE):
            figure = serve_report.draw(one)
            renderer = FigureCanvasAgg(figure).get_renderer()
            figure.draw(renderer)
            texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        drawn = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
        width, height = figure.bbox.width, figure.bbox.height
        # Labels of ticks beyond the ends of an axis exist, but are not drawn.
        boxes = [(t, b) for t, b in drawn if b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height]
        annotated = {text.get_text() for axis in figure.axes for text in axis.texts}
        assert annotated <= {text for text, _ in boxes}
        labels = [(t, b) for t, b in boxes if t in annotated or "s/s" in t]
        for (text, box), (other, second) in itertools.combinations(labels, 2):
            assert not box.overlaps(second), f"{text!r} and {other!r} overlap"


def test_a_load_is_checked():
    with pytest.raises(InputError, match="no rate was given"):
        Load("http://a", rates=())
