"""`barkfast verify` passes what is right and reports what is wrong, also by its exit status."""

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barkfast.bench import comparison, machine, reference, teacher_forced, verify
from barkfast.bench.comparison import PROMPTS, choose_prompts, find_configurations, spelling_tokenizer
from barkfast.bench.verify import CLOSE, FAILED, NOT_RUN, SAME, WRONG, describe_row, is_right, run_verify, wrong_rows
from barkfast.cli import main
from barkfast.errors import InputError
from barkfast.native import native_status
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.cpu.refiner import CpuRefiner
from barkfast.runtime.engines import Engine, describe_engines
from barkfast.text import SPECIAL_TOKENS
from barkfast.voices.locations import local_locations
from barkfast.voices.names import SUPPORTED_LANGS
from barkfast.weights import open_model
from barkfast.weights.convert import convert

from .planted import fail_steps, plant

needs_native = pytest.mark.skipif(not native_status()[0], reason=f"native module {native_status()[1]}")
needs_bark = pytest.mark.skipif(find_spec("bark") is None, reason="bark is not installed (the extra `reference`)")
STAGES = ["semantic", "coarse", "fine", "codec"]
COMPONENTS = list(zip(("text", "coarse", "fine", "codec"), STAGES, strict=True))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps: the verdicts do not depend on their number."""
    for name, steps in (("SEMANTIC_STEPS", 8), ("COARSE_STEPS", 8), ("FINE_HISTORY", 8)):
        monkeypatch.setattr(comparison, name, steps)
    monkeypatch.setattr(reference, "SECONDS", 0.1)


def run(model: str = "random:nano", **options: Any) -> dict[str, Any]:
    return run_verify(model, "cpu", **{"languages": 2, "engines": ["cpu"]} | options)


def verdicts(result: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(row["dtype"], row["stage"]): row["verdict"] for row in result["rows"]}


@needs_native
@pytest.mark.parametrize("model", ["random:nano", "random:demo"])
def test_every_dtype_and_stage_has_its_row(model: str) -> None:
    lines: list[str] = []
    result = run(model, say=lines.append)
    found = verdicts(result)
    assert list(found) == [(d, s) for d in ("float32", "bfloat16", "int8", "int4") for s in STAGES]
    assert set(found.values()) <= {SAME, CLOSE} and is_right(result) and not wrong_rows(result)
    assert all(found["float32", stage] == SAME for stage in STAGES)
    rows = {(row["dtype"], row["stage"]): row for row in result["rows"]}
    assert rows["float32", "semantic"]["tokens"] == rows["float32", "semantic"]["equal"] == 16
    for stage in STAGES[:3]:
        # The coarser the dtype, the larger the error.
        ratios = [rows[dtype, stage]["rms_ratio"] for dtype in ("float32", "bfloat16", "int8", "int4")]
        assert ratios == sorted(ratios)
        assert 0 <= rows["float32", stage]["kl_nats"] < rows["int4", stage]["kl_nats"]
    assert all(rows[dtype, "codec"]["own_log_mel_db"] >= 0 for dtype in ("float32", "int4"))
    assert rows["float32", "codec"]["own_log_mel_db"] < 0.1
    assert len(lines) == 1 + len(result["rows"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@needs_native
@pytest.mark.parametrize(("part", "stage"), COMPONENTS)
def test_a_planted_wrong_engine_is_wrong(
    part: str, stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, "cpu", part, 1.5)
    options = ["--engine", "cpu", "--dtype", "float32", "--dtype", "int8", "--languages", "2"]
    assert main(["verify", "--model", "random:nano", "--device", "cpu", *options]) == 1
    printed = capsys.readouterr().out
    last = printed.splitlines()[-1]
    assert last.startswith("WRONG: ") and f"cpu float32 {stage}" in last and f"cpu int8 {stage}" in last
    assert not any(other in last for other in set(STAGES) - {stage})


@needs_native
def test_a_run_that_is_not_its_steps_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    run_jobs = CpuDecoder.run
    monkeypatch.setattr(CpuDecoder, "run", lambda self, jobs, **o: [t + 1 for t in run_jobs(self, jobs, **o)])
    refine = CpuRefiner.refine
    monkeypatch.setattr(CpuRefiner, "refine", lambda self, job: np.roll(refine(self, job), 1, axis=0))
    found = {row["stage"]: row for row in run(dtypes=["bf16"])["rows"]}
    assert [found[stage]["verdict"] for stage in STAGES[:3]] == [WRONG] * 3
    assert "left to itself" in found["coarse"]["reason"]


@needs_native
def test_an_engine_that_breaks_down_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(CpuRefiner, "logits", break_down)
    fail_steps(monkeypatch, "coarse")
    result = run(dtypes=["float32"])
    found = {row["stage"]: row for row in result["rows"]}
    assert found["fine"]["verdict"] == FAILED and "RuntimeError: planted" in found["fine"]["reason"]
    assert found["coarse"]["verdict"] == WRONG and "not finite" in found["coarse"]["reason"]
    assert found["semantic"]["verdict"] == SAME
    assert not is_right(result) and len(wrong_rows(result)) == 2


def test_an_engine_that_is_not_there_is_a_row_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_cpu(device: str) -> list[Engine]:
        engines = describe_engines(device)
        return [dataclasses.replace(e, available=False, reason="sawn off") if e.name == "cpu" else e for e in engines]

    monkeypatch.setattr(comparison, "describe_engines", without_cpu)
    result = run(engines=["cpu", "torch"], dtypes=["bfloat16"])
    missing, *others = result["rows"]
    assert (missing["engine"], missing["verdict"], missing["reason"]) == ("cpu", NOT_RUN, "sawn off")
    assert describe_row(missing) == "cpu: not run: sawn off"
    assert [row["engine"] for row in others] == ["torch"] * 4 and is_right(result)
    # A run that compared nothing is no success.
    status = main(["verify", "--model", "random:nano", "--device", "cpu", "--engine", "cpu", "--languages", "1"])
    assert status == 1
    out = capsys.readouterr().out
    assert "sawn off" in out and out.splitlines()[-1] == "nothing could be compared"


def test_what_cpus_are_slow_at_has_to_be_asked_for() -> None:
    found = {c.dtype: c.reason for c in find_configurations("cpu", ["torch"])}
    assert "float32" not in found, "the reference is not compared with itself"
    assert found["bfloat16"] == "" and "ask for it" in found["float16"]
    (asked,) = find_configurations("cpu", ["torch"], ["fp16"])
    assert (asked.dtype, asked.reason) == ("float16", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "warp"], "engine is 'warp'; expected torch, cpu, cuda"),
        (["--dtype", "int3"], "dtype is 'int3'; expected float32"),
        (["--engine", "torch", "--dtype", "int8"], "nothing to compare: torch with int8"),
        (["--engine", "torch", "--dtype", "float32"], "torch float32 is the reference"),
        (["--languages", "0"], "languages is 0; expected 1 to 13"),
        (["--languages", "14"], "languages is 14; expected 1 to 13"),
        (["--device", "tpu"], "device is 'tpu'; expected auto"),
        (["--model", "no/such/model/anywhere"], "no/such/model/anywhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model", "random:nano", *options]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_too_little_memory_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "memory_available", lambda: 3_000_000_000)
    monkeypatch.setattr(teacher_forced, "build_network", None)
    assert main(["verify", "--model", "random:large", "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "comparing random:large in float32 needs about 3.9 GB of memory on cpu, and 3.0 GB are free" in error
    # The reference holds all its networks at once.
    monkeypatch.setattr(machine, "memory_available", lambda: 4_000_000_000)
    comparison.require_memory(open_model("random:large"), "cpu")
    with pytest.raises(InputError, match="needs about 6.5 GB"):
        comparison.require_memory(open_model("random:large"), "cpu", together=True)


@needs_native
def test_json_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "cpu", "--engine", "cpu", "--dtype", "int8", "--languages", "1"]
    assert main(["verify", "--model", "random:demo", *options, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["kind"] == "verify" and result["languages"] == ["en"] and result["random_weights"]
    assert result["environment"]["python"] and result["voices"] == {"en": "made up"}
    assert "These weights are random" in result["notes"][0]
    assert "cpu int8 codec" in captured.err
    assert main(["verify", "--model", "random:demo", *options]) == 0
    table = capsys.readouterr().out
    assert "cpu int8 semantic" in table and "KL in nats" in table and "These weights are random" in table
    assert table.splitlines()[-1] == "nothing is wrong"


@needs_bark
@pytest.mark.skipif(find_spec("encodec") is None, reason="encodec is not installed (the extra `reference`)")
def test_the_reference_draws_the_same_tokens() -> None:
    checkpoint = open_model("random:nano")
    rows = reference.compare_reference(checkpoint, comparison.read_examples(checkpoint, PROMPTS[:2]))
    assert [row["stage"] for row in rows] == STAGES[:3]
    for row in rows:
        assert row["engine"] == "bark" and row["equal"] == row["tokens"] > 0, row
        assert verify.verdict_of(row) == SAME
    # A single token that differs is found.
    assert verify.verdict_of(rows[0] | {"equal": rows[0]["tokens"] - 1}) == WRONG


@needs_bark
def test_the_reference_cannot_speak_other_tokens_than_sunos() -> None:
    checkpoint = open_model("random:demo")
    (row,) = reference.compare_reference(checkpoint, comparison.read_examples(checkpoint, PROMPTS[:1]))
    assert "random:demo has others" in row["reason"]
    assert verify.verdict_of(row) == NOT_RUN


def test_there_is_a_sentence_for_each_language() -> None:
    assert [(p.language, p.code) for p in PROMPTS] == SUPPORTED_LANGS
    assert len({prompt.text for prompt in PROMPTS}) == len(PROMPTS)
    assert choose_prompts(3) == PROMPTS[:3]
    with pytest.raises(InputError, match="languages is 14"):
        choose_prompts(14)


def test_random_weights_read_every_letter() -> None:
    tokenizer = spelling_tokenizer()
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt.text)
        assert len(ids) > 10 and SPECIAL_TOKENS.index("[UNK]") not in ids, prompt


def test_voices_are_found_where_there_are_some() -> None:
    checkpoint = open_model("random:nano")
    locations = {name for location in local_locations(checkpoint, None) for name in location.names}
    for example in comparison.read_examples(checkpoint, PROMPTS):
        assert example.voice_name == (example.prompt.voice if example.prompt.voice in locations else "made up")


@pytest.mark.parametrize(("model", "tokenizer"), [("random:nano", "vocab.txt"), ("random:demo", "vocab.txt")])
def test_conversions_of_random_weights_are_known_as_such(model: str, tokenizer: str, tmp_path: Path) -> None:
    convert(model, tmp_path / "model", "fp32", voices=False)
    checkpoint = open_model(tmp_path / "model")
    (example,) = comparison.read_examples(checkpoint, PROMPTS[:1])
    assert example.tokenizer.origin.endswith(tokenizer) and example.voice is not None
    assert "These weights are random" in verify._notes(checkpoint, [example])[0]
