"""The profile of a decode step: its parts, their order, and the printed table."""

import json
import sys
from typing import Any

import pytest

from barkfast.bench import profile
from barkfast.bench.measure import candidates
from barkfast.bench.profile import (
    centred_job,
    make_part,
    make_profile,
    profile_cuda,
    profile_decoder,
    profile_step,
    tabulate,
    to_be_won,
    usual_context,
)
from barkfast.bench.roofline import decoder_step_bytes
from barkfast.bench.workload import Workload, open_bark
from barkfast.cli import main
from barkfast.cli.profile import advise
from barkfast.config import CoarseLayout, Layout, SemanticLayout
from barkfast.errors import InputError
from bench.networks import CONFIG, build_decoder, needs_native

# A layout that fits the small networks.
LAYOUT = Layout(
    semantic=SemanticLayout(vocab_size=20, n_slots=12),
    coarse=CoarseLayout(n_slots=8, max_history=20, sliding_window=6),
    codebook_size=32,
)


def check(found: dict[str, Any], engine: str, dtype: str, stage: str = "coarse") -> None:
    """What every engine's profile has in common."""
    json.dumps(found)
    assert (found["engine"], found["dtype"], found["stage"], found["batch"]) == (engine, dtype, stage, 1)
    assert found["us"] > 0 and found["bytes"] > 0 and found["read_gb_per_s"] > 0
    assert found["floor_us"] == pytest.approx(found["bytes"] / found["read_gb_per_s"] / 1e3, abs=0.02, rel=0.01)
    won = [to_be_won(part) for part in found["parts"]]
    assert won == sorted(won, reverse=True)
    for part in found["parts"]:
        assert {"part", "count", "us", "bytes", "floor_us", "gb_per_s", "share"} == set(part)
        assert part["share"] == pytest.approx(part["us"] / found["us"], abs=1e-3, rel=0.01)


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_cpu_engine_is_profiled_by_matrix(dtype: str):
    decoder = build_decoder("cpu", dtype)
    found = profile_decoder(decoder, LAYOUT, "coarse", device="cpu", quick=True)
    check(found, "cpu", dtype)
    assert found["context"] == 8 + 1 + 20 + 3
    parts = {part["part"]: part for part in found["parts"] if part["part"] != "all else"}
    # The first of the two layers is stored in a finer format.
    stored = ["f32"] if dtype == "float32" else ["bf16", "int8"]
    names = {f"{matrix} {kind}" for matrix in ("qkv", "out", "fc", "proj") for kind in stored}
    cache = "f32" if dtype == "float32" else "int8"
    assert set(parts) == names | {f"head {stored[-1]}", f"attention {cache}"}
    assert sum(part["count"] for name, part in parts.items() if name.startswith("qkv")) == CONFIG.n_layer
    assert all(part["floor_us"] > 0 and part["gb_per_s"] > 0 for part in parts.values())
    job = centred_job(decoder, LAYOUT, "coarse", found["context"], quick=True)
    total = decoder_step_bytes(decoder, context=found["context"], candidates=candidates(job)).total
    assert found["bytes"] == total
    # The parts include matrices, keys and values, but no vectors.
    assert 0.8 * total < sum(part["bytes"] for part in parts.values()) <= total


def test_the_torch_engine_is_profiled_by_operator():
    found = profile_decoder(build_decoder("torch", "float32"), LAYOUT, "coarse", context=40, device="cpu", quick=True)
    check(found, "torch", "float32")
    operators = [part for part in found["parts"] if part["part"] != "all else"]
    assert any(part["part"].startswith("aten::") for part in operators) and len(operators) <= profile.MOST_OPERATORS
    assert all(part["floor_us"] is None for part in operators)
    assert sum(part["share"] for part in found["parts"]) == pytest.approx(1, abs=0.01)
    # A layer has four linear operators.
    assert any(part["count"] >= CONFIG.n_layer * 4 for part in operators)


def test_the_cuda_engine_is_profiled_by_kernel(monkeypatch: pytest.MonkeyPatch):
    decoder = build_decoder("cuda", "float32", n_slots=2)
    jobs = [centred_job(decoder, LAYOUT, "coarse", 30, quick=True, seed=seed) for seed in range(2)]
    found = profile_cuda(decoder, jobs, context=30, read_gb_per_s=10, quick=True)
    check(found | {"batch": 1}, "cuda", "float32")
    assert found["batch"] == 2 and not decoder.active
    names = {part["part"].strip("_").removesuffix("_kernel") for part in found["parts"]}
    if decoder.device.type == "cpu":
        # The profiler sees no kernels in the interpreter.
        assert names == {"all else"}
    else:
        assert {"norm_qkv", "decode_attention"} <= names
    # `profile_decoder` uses it for a cuda decoder.
    monkeypatch.setattr("barkfast.bench.profile.profile_cuda", lambda decoder, jobs, **shape: [*jobs, shape])
    job, shape = profile_decoder(decoder, LAYOUT, "coarse", context=30, device=decoder.device.type, quick=True)
    assert (job.steps, shape["context"]) == (12, 30) and shape["read_gb_per_s"] > 0


def test_kernels_are_added_up_by_name():
    events = [{"name": "_norm_qkv_kernel", "dur": 3.0}, {"name": "_sample_kernel", "dur": 8.0}]
    events += [{"name": "_norm_qkv_kernel", "dur": 5.0}]
    parts = {part["part"]: part for part in tabulate(events, 2, {"norm_qkv": 40_000}, rate=20.0)}
    assert parts["_norm_qkv_kernel"] == {
        "part": "_norm_qkv_kernel",
        "count": 1.0,
        "us": 4.0,
        "bytes": 40_000,
        "floor_us": 2.0,
        "gb_per_s": 10.0,
    }
    assert (parts["_sample_kernel"]["bytes"], parts["_sample_kernel"]["count"]) == (None, 0.5)


def test_what_has_most_to_be_won_comes_first():
    decoder = build_decoder("torch", "float32")
    job = centred_job(decoder, LAYOUT, "coarse", 30)
    # The longest part is close to its roofline already.
    parts = [make_part("long", 1, 50.0, 100, 49.0), make_part("slow", 2, 20.0, 100, 5.0), make_part("none", 1, 2.0)]
    found = make_profile(decoder, "coarse", "torch", [job], 30, 80.0, parts, rate=1.0)
    assert [part["part"] for part in found["parts"]] == ["slow", "all else", "none", "long"]
    assert [part["us"] for part in found["parts"]] == [20.0, 8.0, 2.0, 50.0]
    assert [part["share"] for part in found["parts"]] == [0.25, 0.1, 0.025, 0.625]
    # Parts that take longer singly than the whole step leave no "all else".
    found = make_profile(decoder, "coarse", "torch", [job], 30, 60.0, parts, rate=1.0)
    assert [part["part"] for part in found["parts"]] == ["slow", "none", "long"]


def test_steps_lie_around_the_context():
    decoder = build_decoder("torch", "float32")
    for context in (7, 30, CONFIG.block_size - 6):
        job = centred_job(decoder, LAYOUT, "coarse", context)
        assert len(job.prompt) + job.steps / 2 == context and job.steps >= 12
        decoder.run([job])
    assert usual_context(decoder, LAYOUT, "semantic") == 24
    # The usual context of Suno's layout exceeds the network's positions.
    assert usual_context(decoder, Layout(), "coarse") == CONFIG.block_size - 12


@pytest.mark.parametrize("context", [-1, 6, CONFIG.block_size - 5, 5000])
def test_a_context_without_room_is_refused(context: int):
    with pytest.raises(InputError, match=f"context is {context}; expected 7 to {CONFIG.block_size - 6} positions"):
        profile_decoder(build_decoder("torch", "float32"), LAYOUT, "coarse", context=context, device="cpu")


def test_a_stage_without_steps_is_refused():
    bark = open_bark(Workload("random:nano", device="cpu", dtype="float32", engine="torch"))
    with pytest.raises(InputError, match="stage is 'fine'; expected semantic or coarse"):
        profile_step(bark, "fine", device="cpu")
    assert not bark.components.models


@needs_native
def test_both_stages_of_a_model_can_be_profiled():
    bark = open_bark(Workload("random:nano", device="cpu", dtype="bfloat16", engine="cpu"))
    for stage in ("semantic", "coarse"):
        check(profile_step(bark, stage, device="cpu", quick=True), "cpu", "bfloat16", stage)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Profile with very little memory and few repeats."""
    measure = profile.measure_reading
    monkeypatch.setattr(profile, "LEAST_BYTES", 2**16)
    monkeypatch.setattr(profile, "REPEATS", 2)
    monkeypatch.setattr(profile, "measure_reading", lambda device, seconds: measure(device, seconds=0.05))


COMMAND = ["profile", "--model", "random:nano", "--device", "cpu", "--engine", "torch", "--dtype", "float32"]


def test_the_command_prints_columns_and_what_to_work_on(quick: None, capsys: pytest.CaptureFixture):
    assert main([*COMMAND, "--stage", "semantic", "--context", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "a semantic step of random:nano, float32, torch engine, 300 positions: " in lines[1]
    assert "it must read" in lines[2] and "GB/s" in lines[2]
    head = next(i for i, line in enumerate(lines) if line.startswith("part "))
    assert lines[head].split()[:4] == ["part", "times", "us", "share"]
    assert any(line.startswith("aten::") for line in lines[head + 1 :])
    assert lines[-1].startswith("work on aten::")


def test_the_command_draws_a_table_on_a_terminal(quick: None, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "140")
    assert main(COMMAND) == 0
    printed = capsys.readouterr().out
    assert "to be won us" in printed and "aten::" in printed and "━" in printed


@needs_native
def test_the_command_prints_json(quick: None, capsys: pytest.CaptureFixture):
    assert main(["profile", "--model", "random:nano", "--device", "cpu", "--dtype", "int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "random:nano" and found["environment"]["threads"] >= 1
    check({key: value for key, value in found.items() if key not in ("model", "environment")}, "cpu", "int8")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--model", "random:nano", "--context", "9999"], 1, "context is 9999"),
        (["--model", "random:giant"], 1, "random:giant"),
        (["--engine", "abacus"], 1, "abacus"),
        (["--device", "tpu"], 1, "tpu"),
        (["--dtype", "int3"], 1, "int3"),
        (["--stage", "fine"], 2, "fine"),
    ],
)
def test_bad_input_is_named(arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture):
    assert main(["profile", *arguments]) == status
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_the_advice_names_a_part():
    parts = [make_part("all else", 1, 9.0), make_part("qkv", 1, 5.0, 100, 2.0)]
    assert advise({"parts": parts, "note": "so"}) == "work on qkv first: there are 3.0 us to be won in it (so)"
    assert advise({"parts": parts[:1], "note": "so"}) == "nothing is known of the parts (so)"
