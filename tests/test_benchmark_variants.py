"""Comparing kernel variants: a wrong one is named and not timed, a slow one not chosen, one that hangs left out."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.bench.measure import EndedEarly, step_job
from barkfast.bench.teacher_forced import GREEDY, build_network, teacher_force
from barkfast.config import GPTConfig
from barkfast.errors import InputError
from barkfast.jobs import Job
from barkfast.runtime.cuda import tuned as package
from barkfast.runtime.cuda.tuned import Entry, source_digest
from barkfast.runtime.select import Placement
from barkfast.runtime.torch_ import TorchDecoder
from barkfast.weights import open_model
from barkfast_kernels.variant import DEFAULT, VARIANTS
from benchmarks import tuned
from benchmarks.plan import Plan
from benchmarks.process import ROOT
from benchmarks.record import Recorder, read_fragment, write_json
from benchmarks.sections import ab, decode
from benchmarks.variants import Watch, compare, interleave
from benchmarks.verdict import BASE, choose

CHECKPOINT = open_model("random:nano")
T1, T2 = "T1 trigger first", "T2 carve-out"


def decoder(dtype: str = "float32", factor: float = 1.0) -> TorchDecoder:
    """A network, one of its tensors `factor` times too large."""
    found = build_network(CHECKPOINT, "coarse", Placement("torch", "cpu", "cpu", dtype))
    weight = found.model.transformer.h[1].mlp.c_proj.weight
    found.model.transformer.h[1].mlp.c_proj.weight = torch.nn.Parameter(weight * factor, requires_grad=False)
    return found


def greedy(prompt: int = 60) -> Job:
    job = step_job("coarse", CHECKPOINT.layout, prompt, 48, prompt)
    return Job(job.prompt, job.steps, job.slices, GREEDY)


def test_the_same_network_is_right() -> None:
    path = teacher_force(decoder(), greedy())
    row = compare(decoder(), greedy(), path)
    assert row == {"ok": True, "equal": 48, "tokens": 48, "rms": 0.0, "reason": ""}


def test_other_tokens_are_right_where_the_logits_are_close() -> None:
    # After this prompt two tokens are about as likely.
    path = teacher_force(decoder(), greedy(100))
    row = compare(decoder(factor=1.008), greedy(100), path)
    assert row["ok"] and row["equal"] < 48 and 0 < row["rms"] < 0.01


@pytest.mark.parametrize(("factor", "all_equal"), [(1.03, True), (1.5, False)])
def test_a_planted_wrong_network_is_named(factor: float, all_equal: bool) -> None:
    path = teacher_force(decoder(), greedy(50))
    row = compare(decoder(factor=factor), greedy(50), path)
    assert not row["ok"] and row["rms"] > 0.01 and (row["equal"] == 48) == all_equal
    assert row["reason"].startswith("wrong: logits of step ")


def test_replays_that_differ_from_steps_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    path = teacher_force(decoder(), greedy())
    other = decoder()
    run = other.run

    def race(jobs: list[Job], *args: Any, **options: Any) -> list[np.ndarray]:
        (tokens,) = run(jobs, *args, **options)
        tokens[30:] = tokens[29]
        return [tokens]

    monkeypatch.setattr(other, "run", race)
    row = compare(other, greedy(), path)
    assert not row["ok"] and "between single steps and replays" in row["reason"]


def test_logits_that_are_not_finite_are_wrong() -> None:
    path = teacher_force(decoder(), greedy())
    broken = decoder(factor=float("nan"))
    with pytest.raises(Exception, match="not finite"):
        compare(broken, greedy(), path)


def interleave_fakes(
    times: dict[str, Callable[[int], Any]], left: Callable[[], bool] = lambda: False, **options: Any
) -> tuple[dict[str, list[list[float]]], list[tuple[str, int]], dict[str, Exception]]:
    """What was found, who ran in which round, and who failed."""
    order: list[tuple[str, int]] = []
    failed: dict[str, Exception] = {}

    def time_one(label: str, index: int) -> list[float] | None:
        order.append((label, index))
        return times[label](index)

    found = interleave(list(times), time_one, left=left, on_failure=failed.__setitem__, **options)
    return found, order, failed


def test_variants_are_timed_in_turn() -> None:
    found, order, failed = interleave_fakes({"a": lambda i: [1.0 + i], "b": lambda i: [2.0 + i]}, least=3)
    # The first round warms up; each round another one begins.
    assert [label for label, _ in order] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found == {"a": [[2.0], [3.0], [4.0]], "b": [[3.0], [4.0], [5.0]]} and not failed


def test_there_are_more_rounds_while_time_is_left() -> None:
    answers = iter([True, True, False])
    found, _, _ = interleave_fakes({"a": lambda i: [1.0]}, lambda: next(answers), least=2, most=20)
    assert len(found["a"]) == 4
    found, _, _ = interleave_fakes({"a": lambda i: [1.0]}, lambda: True, least=2, most=5)
    assert len(found["a"]) == 5


def test_one_that_fails_does_not_keep_the_others_from_running() -> None:
    def fail(index: int) -> list[float]:
        if index == 2:
            raise RuntimeError("out of luck")
        return [1.0]

    found, order, failed = interleave_fakes({"a": fail, "b": lambda i: [1.0]}, least=3)
    assert found == {"b": [[1.0]] * 3} and str(failed["a"]) == "out of luck"
    assert [index for label, index in order if label == "a"] == [0, 1, 2]


def test_rounds_that_ended_early_do_not_count() -> None:
    def time_one(index: int) -> list[float]:
        if index == 2:
            raise EndedEarly("a job ended by its stop token")
        return [float(index)]

    found, _, failed = interleave_fakes({"a": time_one}, least=3)
    assert found == {"a": [[1.0], [3.0]]} and not failed


def timed(label: str, us: dict[str, float], dtype: str = "bfloat16") -> list[dict[str, Any]]:
    found = []
    for name, value in us.items():
        stage, context = name.split()
        found.append({"label": label, "dtype": dtype, "stage": stage, "context": float(context), "us_median": value})
    return found


def test_the_fastest_on_average_is_chosen() -> None:
    base = {"semantic 300": 500.0, "coarse 900": 400.0}
    rows = [
        *timed(BASE, base),
        *timed("slow", {"semantic 300": 600.0, "coarse 900": 500.0}),
        # Faster on one of them only.
        *timed("half", {"semantic 300": 250.0, "coarse 900": 520.0}),
        *timed("fast", {"semantic 300": 300.0, "coarse 900": 300.0}),
        # Not timed everywhere.
        *timed("partial", {"semantic 300": 1.0}),
        *timed("fast", {"semantic 300": 1.0}, "int8"),
        {"label": "fast", "dtype": "bfloat16", "ok": True},
    ]
    pick = choose(rows, "bfloat16", BASE)
    assert pick is not None and pick.label == "fast"
    assert pick.ratio == pytest.approx((0.6 + 0.75) / 2)
    assert pick.us == {"semantic 300": 300.0, "coarse 900": 300.0} and pick.base_us == base


def test_the_base_stays_where_nothing_is_faster() -> None:
    rows = [*timed("equal", {"coarse 900": 400.0}), *timed(BASE, {"coarse 900": 400.0})]
    pick = choose([*rows, *timed("slow", {"coarse 900": 401.0})], "bfloat16", BASE)
    assert pick is not None and pick.label == BASE
    assert choose(timed("fast", {"coarse 900": 1.0}), "bfloat16", BASE) is None


def test_every_variant_is_compared_the_base_first(tmp_path: Path) -> None:
    plan = Plan(smoke=False, models=tmp_path, work=tmp_path, deadline=0)
    assert ab.labels(plan)[0] == BASE and sorted(ab.labels(plan)) == sorted(VARIANTS)


class FakeBlock:
    """Variants by name; one is wrong, one cannot be built, and the rest are right."""

    wrong: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def __init__(self, plan: Plan, dtype: str, stage: str, prompts: tuple[int, ...]) -> None:
        self.dtype, self.stage, self.decoders, self.jobs = dtype, stage, {}, [greedy()]

    def build(self, label: str) -> Any:
        if label in self.broken:
            raise ValueError(f"no {label}")
        found = SimpleNamespace(
            label=label,
            stage=self.stage,
            config=GPTConfig(),
            engine="cuda",
            weight_dtype="float32",
            storage_dtype="float32",
        )
        return self.decoders.setdefault(label, found)

    def compare(self, label: str) -> dict[str, Any]:
        COMPARED.append(label)
        self.build(label)
        wrong = label in self.wrong
        return {"ok": not wrong, "reason": "wrong: logits of step 3 are off" if wrong else ""}


COMPARED: list[str] = []
TIMED: list[str] = []


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The section on made-up decoders and times, of three variants."""
    COMPARED.clear()
    TIMED.clear()
    monkeypatch.setattr(ab, "Block", FakeBlock)
    monkeypatch.setattr(ab, "labels", lambda plan: [BASE, T1, T2])
    speeds = {BASE: 0.5, T1: 0.3, T2: 0.9}

    def time_round(plan: Plan, one: Any, prompt: int, seed: int) -> list[float]:
        TIMED.append(one.label)
        return [speeds[one.label]]

    monkeypatch.setattr(ab, "time_round", time_round)


def run_section(folder: Path) -> dict[str, Any]:
    plan = Plan(smoke=True, models=folder, work=folder, deadline=time.monotonic() + 600)
    ab.run(plan, Recorder(folder / "ab.json", plan))
    return read_fragment(folder / "ab.json")


def test_the_fastest_right_variant_is_chosen(tmp_path: Path, fake: None) -> None:
    rows = {row["row"]: row for row in run_section(tmp_path)["rows"]}
    best = rows["best float32"]
    assert best["label"] == T1 and best["ratio"] == 0.6
    entry = Entry.from_dict(best["entry"])
    assert entry.variant == VARIANTS[T1] and entry.source == source_digest() and entry.label == T1
    assert entry.us == {"coarse 43": 300.0} and entry.base_us == {"coarse 43": 500.0}
    one = rows[f"float32 coarse 43, {T2}"]
    assert one["variant"] == VARIANTS[T2].to_dict() and (one["us_median"], one["rounds"]) == (900.0, 1)


def test_a_wrong_variant_is_named_and_not_timed(tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBlock, "wrong", (T1,))
    rows = run_section(tmp_path)["rows"]
    (wrong,) = [row for row in rows if row.get("ok") is False]
    assert T1 in wrong["row"] and wrong["reason"].startswith("wrong: ")
    assert T1 not in TIMED and T2 in TIMED
    assert not any(row.get("label") == T1 and "us_median" in row for row in rows)
    assert rows[-1]["label"] == BASE


def test_a_variant_that_fails_is_named_and_the_others_are_timed(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBlock, "broken", (T1,))
    fragment = run_section(tmp_path)
    assert T1 in fragment["failures"][0]["row"] and "no T1" in fragment["failures"][0]["reason"]
    assert set(TIMED) == {BASE, T2} and fragment["rows"][-1]["row"] == "best float32"


def test_without_the_base_nothing_is_timed_or_chosen(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBlock, "broken", (BASE,))
    fragment = run_section(tmp_path)
    assert not TIMED and not fragment["rows"]
    assert "base variant was not timed" in fragment["failures"][-1]["reason"]


def test_a_process_that_ended_at_a_variant_goes_on_without_it(tmp_path: Path, fake: None) -> None:
    # Two were compared, and the process ended while it compared or timed the third.
    plan = Plan(smoke=True, models=tmp_path, work=tmp_path, deadline=time.monotonic() + 600)
    record = Recorder(tmp_path / "ab.json", plan)
    for label in (BASE, T2):
        record.measure(f"float32 coarse, {label}, is right", lambda: {"ok": True})
    (tmp_path / "ab.at").write_text(T1, encoding="utf-8")
    fragment = run_section(tmp_path)
    assert [failure["row"] for failure in fragment["failures"]] == [f"{T1} hangs or crashes"]
    assert not COMPARED and set(TIMED) == {BASE, T2}
    assert fragment["rows"][-1]["label"] == BASE
    assert not (tmp_path / "ab.at").exists()
    # And once more: all of it is known.
    TIMED.clear()
    assert run_section(tmp_path) == fragment and not TIMED and not COMPARED


HANGS = """
import sys, time
from pathlib import Path
from benchmarks.variants import Watch
watch = Watch(Path(sys.argv[1]))
with watch.over("one that is well", 60):
    pass
assert not watch.path.exists()
with watch.over("one that hangs", 0.5):
    time.sleep(60)
"""


def test_a_variant_that_hangs_ends_the_process_and_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "at"
    begin = time.monotonic()
    command = [sys.executable, "-c", HANGS, str(path)]
    result = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}, capture_output=True)
    assert result.returncode == 1 and time.monotonic() - begin < 50
    assert b"Timeout" in result.stderr
    watch = Watch(path)
    assert watch.take_last() == "one that hangs" and watch.take_last() is None


def entry(**changes: Any) -> Entry:
    content = Entry(
        *("nvidia-h200", "bfloat16", 1, source_digest(), "2026-12-01", T1, VARIANTS[T1]),
        us={"coarse 900": 300.0},
        base_us={"coarse 900": 500.0},
    ).to_dict()
    return Entry.from_dict(content | changes)


def results(*entries: Entry, **changes: Any) -> dict[str, Any]:
    """As of a run."""
    rows = [{"row": f"best {one.dtype}", "entry": one.to_dict()} for one in entries]
    return {"smoke": False, "sections": {"ab": {"rows": [{"row": "a check", "ok": True}, *rows]}}} | changes


def test_entries_are_installed_in_the_place_of_the_devices_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    into, run = tmp_path / "tuned.json", tmp_path / "results.json"
    other = entry(device="nvidia-l4", source="old")
    same_source, old_source = entry(dtype="int8"), entry(dtype="float16", source="old")
    tuned.write(into, [other, same_source, old_source, entry(label="before")])
    run.write_text(json.dumps(results(entry(), entry(batch=4))), encoding="utf-8")
    assert tuned.main([str(run), "--into", str(into)]) == 0
    assert list(package.parse(into.read_text(encoding="utf-8"))) == [entry(), entry(batch=4), same_source, other]
    printed = capsys.readouterr().out
    assert f"nvidia-h200, bfloat16, batch 1: {T1}, measured 2026-12-01" in printed and "changed" not in printed


def test_what_other_kernels_were_timed_for_is_installed_but_not_in_force(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    into, run = tmp_path / "tuned.json", tmp_path / "results.json"
    run.write_text(json.dumps(results(entry(source="old"))), encoding="utf-8")
    assert tuned.main([str(run), "--into", str(into)]) == 0
    assert package.choose("NVIDIA H200", "bfloat16", 1, into).variant == DEFAULT
    assert "kernels have changed since" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (results(), "no choice of kernels"),
        (results(entry(), smoke=True), "smoke test"),
        ({"format": 1, "entries": []}, "holds no results of `make gpu`"),
        ([], "holds no results of `make gpu`"),
        ({"smoke": False, "sections": {}}, "no choice of kernels"),
    ],
)
def test_what_holds_no_choice_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: Any, message: str
) -> None:
    into, run = tmp_path / "tuned.json", tmp_path / "results.json"
    tuned.write(into, [entry()])
    before = into.read_bytes()
    run.write_text(json.dumps(content), encoding="utf-8")
    assert tuned.main([str(run), "--into", str(into)]) == 1
    assert message in capsys.readouterr().err and into.read_bytes() == before
    with pytest.raises(InputError, match="tuned.json"):
        into.write_text("{", encoding="utf-8")
        tuned.install([entry()], into)


def test_decode_times_the_runs_best_against_the_base(tmp_path: Path) -> None:
    plan = Plan(smoke=True, models=tmp_path, work=tmp_path, deadline=time.monotonic() + 600)
    ways = [case.way for case in decode.gpu_cases(plan, "")]
    assert [(way.name, way.variant) for way in ways] == [("best", DEFAULT), ("base", VARIANTS[BASE])]
    there = tmp_path / "there"
    there.mkdir()
    section = results(entry(dtype="float32"), entry(variant=VARIANTS[T2].to_dict()))["sections"]["ab"]
    write_json(there / "ab.json", section)
    plan = Plan(smoke=True, models=tmp_path, work=there, deadline=time.monotonic() + 600)
    best, base = (case.way for case in decode.gpu_cases(plan, ""))
    assert (best.label, best.variant, base.label) == (T1, VARIANTS[T1], BASE)
