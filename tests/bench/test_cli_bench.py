"""`barkfast bench` from the command line: refused input, output, exit status, and one real run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from barkfast.bench import bench
from barkfast.bench.bench import Interrupted
from barkfast.bench.measure import Limits
from barkfast.bench.worker import Remote
from barkfast.cli import main
from barkfast.weights import Checkpoint

from .sample import not_run, red_result, sample_result

NANO = ["--model", "random:nano", "--device", "cpu", "--engine", "torch", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A fake run: records its arguments from index 1 on, and gives the result under "give" at index 0."""
    collected: list[dict[str, Any]] = []

    def run_bench(workload: Any, **options: Any) -> dict[str, Any]:
        result = collected[0].get("give", sample_result())
        collected.append({"case": workload, **options})
        if isinstance(result, BaseException):
            raise result
        return result

    collected.append({})
    monkeypatch.setattr(bench, "run_bench", run_bench)
    return collected


def test_the_options_arrive(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture):
    options = "--voice full --seconds 2.5 --repeats 7 --seed 3 --compare bark,transformers --batch 1,3"
    options += " --json r.json --trace t.json"
    assert main(["bench", *NANO, *options.split()]) == 0
    call = calls[1]
    asked = call["case"]
    assert (asked.model, asked.device, asked.engine, asked.dtype) == ("random:nano", "cpu", "torch", "float32")
    assert (asked.voice, asked.seconds, asked.seed, asked.small) == ("full", 2.5, 3, False)
    assert (call["compare"], call["repeats"], call["batches"]) == (["bark", "transformers"], 7, [1, 3])
    assert (call["out"], call["trace"]) == (Path("r.json"), Path("t.json"))
    printed = capsys.readouterr().out
    assert "real-time factor" in printed and "r.json: the result, complete" in printed


def test_json_on_standard_output_stands_there_alone(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture):
    assert main(["bench", *NANO, "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == sample_result()
    assert "real-time factor" in printed.err
    assert calls[1]["out"] is None


def test_a_folder_gets_a_file_of_a_telling_name(calls: list[dict[str, Any]], work: Path):
    (work / "results").mkdir()
    assert main(["bench", *NANO, "--json", "results"]) == 0
    out = calls[1]["out"]
    assert out.parent == Path("results") and out.name.startswith("bench-")
    assert "random-nano-float32-20" in out.name and out.suffix == ".json"
    out.touch()
    assert main(["bench", *NANO, "--json", "results"]) == 0
    assert calls[2]["out"].stem == f"{out.stem}-2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "--repeats is 0; expected at least 1 clip"),
        (["--seconds", "0"], "--seconds: seconds is 0.0; expected a positive number"),
        (["--seconds", "nan"], "expected a positive number"),
        (["--seed", "-1"], "--seed is -1"),
        (["--batch", "0"], "--batch: a batch of 0 jobs"),
        (["--batch", "1,x"], "--batch: expected whole numbers with commas between"),
        (["--compare", "bark,tortoise"], "--compare: unknown peer 'tortoise'; expected one of bark, transformers"),
        (["--engine", "jet"], "engine is 'jet'; expected auto, torch, cpu, cuda"),
        (["--dtype", "int3"], "dtype is 'int3'"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--model", "random:huge"], "unknown model 'random:huge'"),
        (["--voice", "nobody"], "voice 'nobody' is unknown"),
        (["--json", "absent/r.json"], "--json: cannot write absent/r.json: .* is not an existing folder"),
        (["--trace", "absent/t.json"], "--trace: cannot write absent/t.json"),
        (["--plot", "file"], "--plot: "),
    ],
)
def test_bad_input_is_one_line_before_anything_is_loaded(
    options: list[str], message: str, work: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    (work / "file").touch()
    monkeypatch.setattr(Remote, "start", lambda self: pytest.fail("a process was started"))
    monkeypatch.setattr(Checkpoint, "codec", lambda self: pytest.fail("it was loaded"))
    assert main(["bench", *NANO, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("barkfast: error: ") and error.count("\n") == 1
    assert re.search(message, error), error


@pytest.mark.parametrize("change", ["red", "partial", "peer"])
def test_what_was_not_measured_shows_in_the_exit_status(
    change: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture
):
    results = {"red": red_result(), "partial": sample_result("partial"), "peer": sample_result()}
    results["peer"]["contenders"][1] = not_run()
    calls[0]["give"] = results[change]
    assert main(["bench", *NANO]) == 1
    printed = capsys.readouterr().out
    wanted = {"red": "gate: RED", "partial": "is partial", "peer": "bark: not run: bark is not installed: pip install"}
    assert wanted[change] in printed
    assert ("real-time factor" in printed) == (change != "red")


def test_ctrl_c_shows_what_there_is(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture):
    calls[0]["give"] = Interrupted(sample_result("partial"))
    assert main(["bench", *NANO, "--json", "r.json"]) == 130
    printed = capsys.readouterr()
    assert "real-time factor" in printed.out and "r.json: the result, partial" in printed.out
    assert "interrupted" in printed.err


def test_pictures_are_drawn(calls: list[dict[str, Any]], work: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `bench`)")
    assert main(["bench", *NANO, "--plot", "pictures"]) == 0
    names = {path.name for path in (work / "pictures").iterdir()}
    assert names == {"waterfall.png", "roofline.png", "batch.png", "peers.png"}
    assert "peers.png" in capsys.readouterr().out


def test_a_real_run(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    limits = Limits(40.0, 2.0, [{"name": "made up", "value": 40.0, "unit": "GB/s"}])
    monkeypatch.setattr(Remote, "limits", lambda self: [limits, limits])
    options = ["--voice", "full", "--seconds", "0.1", "--repeats", "2", "--compare", "transformers", "--batch", "2"]
    status = main(["bench", *NANO, *options, "--json", "r.json", "--trace", "t.json"])
    result = json.loads((work / "r.json").read_text(encoding="utf-8"))
    ours, peer = result["contenders"]
    assert (ours["name"], ours["status"], len(ours["clips"])) == ("barkfast", "ok", 2)
    assert result["gate"]["checks"] and [row["batch"] for row in result["batch"]] == [2]
    assert ours["memory"]["rss_bytes"] > 50_000_000 and ours["start_up"]["import_s"] > 0
    if peer["status"] == "ok":
        assert status == 0 and len(peer["clips"]) == 2
        assert [s["count"] for s in peer["stages"]] == [s["count"] for s in ours["stages"]]
    else:
        assert status == 1 and "pip install" in peer["reason"]
    names = {event["name"] for event in json.loads((work / "t.json").read_text(encoding="utf-8"))["traceEvents"]}
    assert {"semantic", "coarse", "fine", "codec"} <= names
    printed = capsys.readouterr()
    assert "share of limit" in printed.out and "checking that the torch engine" in printed.err
