"""`run_bench` checks before it times, runs backends in turn and keeps partial results; and its tables."""

import io
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import barkfast
from barkfast.bench import bench, machine
from barkfast.bench.backends import Backend, NotInstalled, Ours
from barkfast.bench.bench import Interrupted, run_bench
from barkfast.bench.check import Check
from barkfast.bench.measure import Limits, time_batches
from barkfast.bench.report import describe_slower, describe_stage, print_result
from barkfast.bench.roofline import Work
from barkfast.bench.worker import WorkerError
from barkfast.bench.workload import STAGES, Clip, Workload
from barkfast.errors import EngineError, InputError, VoiceError
from barkfast.native import load_native
from barkfast.runtime.cpu import store

from .sample import not_run, red_result, sample_result

WORKLOAD = Workload("random:nano", "cpu", "float32", "torch", seconds=1.0)
SCHEMA = json.loads((Path(barkfast.__file__).parent / "bench" / "schema.json").read_text(encoding="utf-8"))
RIGHT = asdict(Check("semantic tokens", True, 1.0, 1.0, "share"))
WRONG = asdict(Check("fine codes", False, 0.2, 1.0, "share"))
LIMITS = Limits(40.0, 2.0, [{"name": "torch.sum", "value": 40.0, "unit": "GB/s"}])
BATCH = {"batch": 1, "ms_per_step": {"median": 2.0, "p95": 2.0, "min": 2.0, "max": 2.0, "n": 9}, "tokens_per_s": 500}
COUNTS = {"semantic": 50, "coarse": 150, "fine": 75, "codec": 75}


def check_schema(result: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (the extra `test`)")
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(result)))


class Fake(Backend):
    """A fake backend that takes no time, reports made-up times, and logs its calls."""

    log: list[tuple[str, Any]] = []
    fails: dict[str, dict[str, Exception | type[BaseException]]] = {}
    checks: list[dict[str, Any]] = [RIGHT]

    def __init__(self, name: str, workload: Workload) -> None:
        super().__init__(workload)
        self.name = name

    def _note(self, what: str, *details: Any) -> None:
        self.log.append((self.name, (what, *details) if details else what))
        error = self.fails.get(self.name, {}).get(what)
        if error is not None and not (what == "speak" and details[0] == 0):
            raise error

    def import_library(self) -> None:
        self._note("import")
        self.version = "1.0"

    def load_networks(self) -> None:
        self._note("load")
        self.dtype = "float32"
        if self.name == "barkfast":
            self.work = {stage: Work(1e9, 1e11, 2e11) for stage in STAGES}

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        if seconds is None:
            self._note("speak", seed)
        each = 0.1 if self.name == "barkfast" else 0.8
        return Clip(dict.fromkeys(STAGES, each), COUNTS, 1.0, 4 * each)

    def memory(self) -> dict[str, Any]:
        return {"rss_bytes": 10**9, "device_bytes": None}

    def trace(self, path: Any, seed: int) -> None:
        Path(path).write_text("{}", encoding="utf-8")

    def close(self) -> None:
        self.log.append((self.name, "close"))

    def start(self) -> None:
        self._note("start")

    def check(self) -> list[dict[str, Any]]:
        self._note("check")
        return self.checks

    def limits(self) -> list[Limits]:
        self._note("limits")
        return [LIMITS, LIMITS]

    def share(self, folder: str) -> str:
        self._note("share")
        return Ours(self.workload).share(folder)

    def batches(self, batches: Sequence[int]) -> list[dict[str, Any]]:
        self._note("batches", *batches)
        return [BATCH]


def calls(fake: type[Fake], *kinds: str) -> list[tuple[str, Any]]:
    """The calls of some kinds, in order."""
    return [(name, what) for name, what in fake.log if (what if isinstance(what, str) else what[0]) in kinds]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """Everything but the run itself is fake; `log` has (backend, call) in order."""
    monkeypatch.setattr(Fake, "log", [])
    monkeypatch.setattr(Fake, "fails", {})
    monkeypatch.setattr(Fake, "checks", [RIGHT])
    return Fake


def run(**options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"compare": ["bark", "transformers"], "repeats": 3, "make": Fake, "say": lambda _: None}
    return run_bench(WORKLOAD, **{**settings, **options})


def rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["contenders"]}


def test_a_run_measures_all_in_turn(fake: type[Fake], tmp_path: Path):
    out, messages = tmp_path / "result.json", []
    result = run(out=out, trace=tmp_path / "trace.json", say=messages.append)
    check_schema(result)
    assert json.loads(out.read_text(encoding="utf-8")) == result
    assert (result["status"], result["case"]["random_weights"], result["gate"]["ok"]) == ("complete", True, True)
    spoken = [(name, what[1]) for name, what in calls(fake, "speak")]
    assert spoken == [(name, seed) for seed in range(3) for name in ("barkfast", "bark", "transformers")]
    found = rows(result)
    assert [len(row["clips"]) for row in found.values()] == [3, 3, 3]
    assert found["bark"]["real_time_factor"]["median"] == pytest.approx(3.2)
    assert all(line["share"] is None for line in found["bark"]["stages"])
    # A process of barkfast for all but clips is there from the check to the batches.
    closed = [name for name, _ in calls(fake, "close")]
    assert closed == ["barkfast", "bark", "transformers", "barkfast"]
    others = [what for _, what in calls(fake, "start", "check", "limits", "share", "batches")]
    assert others == ["start", "check", "limits", "share", ("batches", 1, 2, 4, 8)]
    assert (tmp_path / "trace.json").exists() and result["batch"]
    assert any("real-time factor 0.4" in line for line in messages)


def test_a_stage_is_set_against_the_limits():
    clips = [Clip(dict.fromkeys(STAGES, seconds), COUNTS, 1.0, 1.0) for seconds in (0.1, 0.2, 0.4)]
    # Of 0.2 s: 25 ms to read 1 GB at 40 GB/s, 50 ms to compute 0.1 TFLOP at 2 TFLOP/s.
    work = Work(1e9, 1e11, 2e11)
    coarse, fine = (describe_stage(stage, clips, work, LIMITS) for stage in ("coarse", "fine"))
    assert coarse["share"] == pytest.approx(0.375) and fine["share"] == pytest.approx(0.25)
    assert (coarse["gb_per_s"], coarse["tflop_per_s"]) == (pytest.approx(5), pytest.approx(0.5))
    assert (coarse["count"], coarse["unit"], coarse["ms_per_count"]) == (150, "tokens", pytest.approx(200 / 150))
    assert (coarse["s"]["median"], coarse["s"]["p95"], coarse["s"]["n"]) == (0.2, 0.4, 3)
    assert describe_stage("coarse", clips, Work(9e9, 1e11, 1e11), LIMITS)["limit"] == "read"
    assert fine["limit"] == "compute"


def test_what_is_wrong_is_not_timed(fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nan = asdict(Check("codec", False, float("nan"), 1e-3, "rms ratio"))
    monkeypatch.setattr(fake, "checks", [RIGHT, WRONG, nan])
    result = run(out=tmp_path / "result.json")
    check_schema(result)
    assert result["status"] == "gate red" and not result["contenders"]
    assert [what for _, what in fake.log] == ["start", "check", "close"]
    assert result["gate"]["checks"][2]["value"] is None


def test_nothing_checked_is_not_right(fake: type[Fake], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fake, "checks", [])
    assert run()["status"] == "gate red"


@pytest.mark.parametrize("error", [EngineError("the cpu engine failed"), WorkerError("check: ended after 900 s")])
def test_a_check_that_fails_ends_the_run(error: Exception, fake: type[Fake]):
    fake.fails["barkfast"] = {"check": error}
    with pytest.raises(EngineError, match=str(error)):
        run()
    assert [what for _, what in fake.log] == ["start", "check", "close"]


def test_a_slow_peer_speaks_once_and_barkfast_as_often_as_asked_for(fake: type[Fake]):
    found = rows(run(budget_s=0))
    assert {name: len(row["clips"]) for name, row in found.items()} == {"barkfast": 3, "bark": 1, "transformers": 1}
    assert found["bark"]["status"] == "ok"


def test_ctrl_c_keeps_what_was_measured(fake: type[Fake], tmp_path: Path):
    fake.fails["bark"] = {"speak": KeyboardInterrupt}
    out = tmp_path / "result.json"
    with pytest.raises(Interrupted) as caught:
        run(out=out)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result == caught.value.result and result["status"] == "partial"
    check_schema(result)
    assert {name: len(row["clips"]) for name, row in rows(result).items()} == {
        **{"barkfast": 2, "bark": 1, "transformers": 1}
    }
    assert len(calls(fake, "close")) == 4


def test_ctrl_c_during_the_check_leaves_no_process(fake: type[Fake]):
    fake.fails["barkfast"] = {"check": KeyboardInterrupt}
    with pytest.raises(KeyboardInterrupt) as caught:
        run()
    assert not isinstance(caught.value, Interrupted) and calls(fake, "close")


def test_ctrl_c_while_loading_keeps_the_gate_and_the_limits(fake: type[Fake]):
    fake.fails["barkfast"] = {"load": KeyboardInterrupt}
    with pytest.raises(Interrupted) as caught:
        run()
    result = caught.value.result
    check_schema(result)
    assert result["gate"]["ok"] and result["limits"]["read_gb_per_s"] == 40.0
    assert [row["reason"] for row in result["contenders"]] == ["the run ended before its turn"] * 3


def test_a_peer_that_is_not_there_is_skipped_and_one_that_fails_fails_alone(fake: type[Fake]):
    fake.fails["bark"] = {"import": NotInstalled("bark is not here; pip install it")}
    fake.fails["transformers"] = {"speak": RuntimeError("out of order")}
    messages: list[str] = []
    result = run(say=messages.append)
    check_schema(result)
    found = rows(result)
    assert (found["bark"]["status"], found["bark"]["reason"]) == ("not run", "bark is not here; pip install it")
    failed = found["transformers"]
    assert (failed["status"], failed["reason"], len(failed["clips"])) == ("failed", "RuntimeError: out of order", 1)
    assert result["status"] == "complete" and len(found["barkfast"]["clips"]) == 3
    assert "bark: not run: bark is not here; pip install it" in messages


def test_a_run_without_a_result_of_ours_is_not_complete(fake: type[Fake]):
    fake.fails["barkfast"] = {"load": EngineError("no such thing")}
    result = run()
    check_schema(result)
    assert result["status"] == "partial" and rows(result)["barkfast"]["reason"] == "no such thing"
    assert len(rows(result)["bark"]["clips"]) == 3


def test_peers_share_the_weights_and_leave_nothing(fake: type[Fake]):
    class Looking(Fake):
        def load_networks(self) -> None:
            super().load_networks()
            assert self.name == "barkfast" or (Path(self.workload.model or "") / "model.safetensors").is_file()
            self.log.append((self.name, ("model", self.workload.model)))

    assert run(make=Looking)["status"] == "complete"
    ours, *theirs = [what[1] for _, what in calls(fake, "model")]
    assert ours == "random:nano" and len(theirs) == 2 and len(set(theirs)) == 1
    assert not Path(theirs[0]).parent.exists()


def test_weights_that_cannot_be_written_fail_the_peers_alone(fake: type[Fake]):
    fake.fails["barkfast"] = {"share": OSError("no space left")}
    found = rows(run())
    assert [row["status"] for row in found.values()] == ["ok", "failed", "failed"]
    assert "no space left" in found["transformers"]["reason"]


def test_batches_that_fail_take_nothing_with_them(fake: type[Fake]):
    fake.fails["barkfast"] = {"batches": MemoryError("no room")}
    messages: list[str] = []
    result = run(say=messages.append)
    assert result["status"] == "partial" and result["batch"] == [] and "batches: MemoryError: no room" in messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats is 0; expected at least 1"),
        ({"compare": ["tortoise"]}, "unknown peer 'tortoise'"),
        ({"batches": [4, 0]}, "a batch of 0 jobs; expected 1 to 64"),
        ({"out": Path("no/such/folder/result.json")}, "no/such/folder is not an existing folder"),
        ({"trace": Path("no/such/folder/trace.json")}, "no/such/folder is not an existing folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(options: dict[str, Any], message: str, fake: type[Fake]):
    with pytest.raises(InputError, match=message):
        run(**options)
    assert not fake.log


def test_a_voice_or_a_machine_that_cannot_be_used_is_named_first(fake: type[Fake], monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(VoiceError, match="nobody"):
        run_bench(Workload(**{**vars(WORKLOAD), "voice": "nobody"}), make=Fake)
    monkeypatch.setattr(machine, "memory_available", lambda: 10**6)
    with pytest.raises(InputError, match="the model needs about"):
        run()
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(InputError, match=r"needs psutil, .*pip install 'barkfast\[bench\]'"):
        run()
    assert not fake.log


def test_a_peer_without_room_is_not_run(fake: type[Fake], monkeypatch: pytest.MonkeyPatch):
    check = bench.check_memory

    def check_peer(workload: Workload, what: str = "the model") -> None:
        if what != "the model":
            monkeypatch.setattr(machine, "memory_available", lambda: 10**6)
        check(workload, what)

    monkeypatch.setattr(bench, "check_memory", check_peer)
    found = rows(run())
    assert found["barkfast"]["status"] == "ok" and found["bark"]["status"] == "not run"
    assert "bark needs about" in found["bark"]["reason"]


def test_a_slow_down_in_one_stage_shows_in_that_stage_alone():
    class Twice(Ours):
        """Does the work of the fine stage twice."""

        def load_networks(self) -> None:
            super().load_networks()
            refiner = self.loaded.components.network("fine")
            refine = refiner.refine
            refiner.refine = lambda job: (refine(job), refine(job))[1]

    backends = [Ours(WORKLOAD), Twice(WORKLOAD)]
    for backend in backends:
        backend.load()
        backend.speak(0)
    clips = [[backend.speak(seed) for backend in backends] for seed in range(7)]
    # Compare clips that ran one right after the other, so that other load affects both.
    ratios = {
        stage: statistics.median(slow.seconds[stage] / plain.seconds[stage] for plain, slow in clips)
        for stage in STAGES
    }
    assert 1.5 < ratios.pop("fine") < 2.8
    assert all(0.5 < ratio < 1.6 for ratio in ratios.values()), ratios


def test_steps_of_several_jobs(monkeypatch: pytest.MonkeyPatch):
    found = time_batches(WORKLOAD, (1, 2))
    assert [row["batch"] for row in found] == [1, 2]
    for row in found:
        assert row["tokens_per_s"] == pytest.approx(row["batch"] / row["ms_per_step"]["median"] * 1e3)
    monkeypatch.setattr(machine, "memory_available", lambda: 10**6)
    assert time_batches(WORKLOAD) == []


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that plants a wrong kernel: one matrix of the coarse network has the wrong sign."""
    if load_native() is None:
        pytest.skip("the native module is not built")

    def plant() -> None:
        right = store.open_packed

        def wrong(config: Any, tensors: Any, dtype: str, *, what: str, **options: Any) -> Any:
            key = "transformer.h.1.mlp.c_proj.weight"
            tensors = {**tensors, key: -tensors[key]} if "coarse" in what else tensors
            # Without `content` the packed weights are not stored.
            return right(config, tensors, dtype, what=what, **{**options, "content": None})

        monkeypatch.setattr(store, "open_packed", wrong)

    return plant


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_wrong_kernel_is_not_timed(dtype: str, plant: Callable[[], None], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Ours, "limits", lambda self: pytest.fail("something was timed"))
    plant()
    workload = Workload("random:nano", "cpu", dtype, "cpu", seconds=1.0)
    result = run_bench(workload, make=lambda name, workload: Ours(workload), say=lambda _: None)
    check_schema(result)
    assert result["status"] == "gate red" and not result["contenders"]
    wrong = [check["name"] for check in result["gate"]["checks"] if not check["ok"]]
    assert wrong and all(name.startswith("coarse") for name in wrong)
    shown = printed(result)
    assert "gate: RED" in shown and "coarse" in shown and "What is wrong is not timed." in shown
    assert "real-time" not in shown and " ms" not in shown


def printed(result: dict[str, Any], terminal: bool = False) -> str:
    file = io.StringIO()
    file.isatty = lambda: terminal  # type: ignore[method-assign]
    print_result(result, file)
    return file.getvalue()


def test_the_tables_of_a_result():
    shown = printed(sample_result())
    lines = shown.splitlines()
    coarse = next(line for line in lines if line.startswith("coarse"))
    stage = sample_result()["contenders"][0]["stages"][1]
    for expected in ("1498 tokens", f"{stage['share']:.0%}", f"{stage['gb_per_s']:.3g}", "reading"):
        assert expected in coarse
    assert "computing" in next(line for line in lines if line.startswith("fine"))
    bark = next(line for line in lines if line.startswith("bark 0.1.1"))
    ours, theirs = (rows(sample_result())[name]["real_time_factor"]["median"] for name in ("barkfast", "bark"))
    assert f"{theirs / ours:.1f}" in bark and "float32" in bark
    assert "gate: green, 2 of 2 checks hold" in shown and "random:small (random weights" in shown
    assert "limits measured in this run: 38.9 GB/s" in shown
    assert "bench does not stream" in shown and "\x1b" not in shown
    assert max(map(len, lines)) <= 160
    assert any(line.split()[:2] == ["8", "11.4"] for line in lines)


def test_the_tables_of_a_result_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1m" in printed(sample_result(), terminal=True)


def test_the_tables_of_a_red_a_partial_and_a_lonely_result():
    shown = printed(red_result())
    assert "gate: RED, 1 of 2 checks hold" in shown and "coarse logits: 0.61 rms ratio, limit 0.08" in shown
    assert " s " not in shown.partition("What is wrong")[2] and "real-time" not in shown
    assert "the result is partial" in printed(sample_result("partial"))
    single = sample_result() | {"contenders": [sample_result()["contenders"][0], not_run()]}
    shown = printed(single)
    assert "bark: not run: bark is not installed" in shown and "Seconds of each stage" not in shown


@pytest.mark.parametrize(
    ("fine", "words"),
    [(0.25, "no stage is slower than the torch engine in bfloat16"), (0.05, "fine 2.00 times its time")],
)
def test_a_stage_that_is_slower_than_plain_torch_is_named(fine: float, words: str):
    timed = [
        {"name": name, "dtype": dtype, "stages": [{"stage": s, "s": {"median": t[s]}} for s in STAGES]}
        for name, dtype, t in (
            ("barkfast", "int8", dict.fromkeys(STAGES, 0.1)),
            ("torch", "bfloat16", dict.fromkeys(STAGES, 0.2) | {"fine": fine}),
        )
    ]
    (line,) = describe_slower(timed)
    assert words in line and line.startswith("SLOWER than" if fine < 0.1 else "no stage")
    assert not list(describe_slower(timed[:1]))
