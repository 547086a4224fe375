"""What `make cpu` makes of what was measured, and that all of it runs, with the smallest model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from barkfast.native import native_status
from benchmarks import schema
from benchmarks.cpu import results, steps, table
from benchmarks.cpu.run import CpuRun
from benchmarks.cpu.targets import TARGETS
from benchmarks.process import ROOT

needs_native = pytest.mark.skipif(not native_status()[0], reason=f"native module {native_status()[1]}")


def row(name: str, **entries: Any) -> dict[str, Any]:
    return {"row": name, **entries}


def fragment(*rows: dict[str, Any], **entries: Any) -> dict[str, Any]:
    return {"rows": list(rows), "failures": [], "complete": True, **entries}


def merged(fragments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Results with nothing but the given steps' rows."""
    gate = {"open": True, "dtypes": ["float32"], "reason": ""}
    return results.merge(
        smoke=False,
        complete=True,
        seconds=1,
        steps=[],
        fragments=fragments,
        gate=gate,
        threads=(1, 2),
        full=False,
    )


def read(threads: int, rate: float) -> dict[str, Any]:
    return row(f"read {rate}", threads=threads, gb_per_s=rate, bytes={"total": 10**9}, ms_median=1e3 / rate)


def vectors(size: str, dtype: str, rate: float, threads: int = 2) -> list[dict[str, Any]]:
    """A layer's products, each at `rate` GB/s of the 30 that were read in turn with them."""
    return [
        row(
            f"{size} {name} {dtype} {threads}",
            kind="vector",
            engine="native",
            size=size,
            dtype=dtype,
            matrix=name,
            threads=threads,
            bytes={"total": number * 10**6},
            ms_median=number / rate,
            read_ms=number / 30,
        )
        for name, number in (("qkv", 3), ("out", 1), ("fc", 4), ("proj", 4))
    ]


def clip(size: str, factor: float, *, dtype: str = "int8", voice: bool = True, threads: int = 2) -> dict[str, Any]:
    stages = {"semantic": 1.0, "coarse": 1.0, "fine": 1.0, "codec": 1.0}
    factors = {f"real_time_factor_{key}": factor for key in ("median", "p95")}
    name = f"{size} {dtype} {voice} {threads}"
    same = {"size": size, "dtype": dtype, "voice": voice, "threads": threads, "real_time_factor_n": 1}
    return row(name, median_s=stages, **same, **factors)


def peer(name: str, size: str, factor: float) -> dict[str, Any]:
    same = {"peer": name, "size": size, "threads": 2, "dtype": "float32", "voice": True}
    times = {"real_time_factor_median": factor, "real_time_factor_n": 1, "ms_per_semantic_token": 1.0, "audio_s": 10.0}
    return row(f"{name} {size}", last_seconds={"semantic": 1.0}, **same, **times)


def logits(dtype: str, ratio: float) -> dict[str, Any]:
    return row(f"logits {dtype}", ok=True, dtype=dtype, rms_ratio=ratio, rms_ratios={"nano coarse": ratio})


def verdicts(content: dict[str, Any]) -> dict[str, tuple[float | None, str]]:
    return {target["name"]: (target["value"], target["verdict"]) for target in content["targets"]}


def test_steps_of_one_section_make_one_section():
    content = merged(
        {
            "read 2": fragment(read(2, 30.0)),
            "read 1": fragment(read(1, 20.0), read(1, 25.0)),
            "decode small 2": fragment(row("a"), complete=False, reason="ended early"),
            "decode large 2": fragment(row("b")),
        }
    )
    assert [r["row"] for r in content["sections"]["decode"]["rows"]] == ["a", "b"]
    assert [r["step"] for r in content["sections"]["decode"]["rows"]] == ["decode small 2", "decode large 2"]
    assert not content["sections"]["decode"]["complete"]
    assert content["sections"]["decode"]["reason"] == "decode small 2: ended early"
    assert content["ceilings"]["read_gb_per_s"] == {"2": 30.0, "1": 25.0}
    assert schema.find_problems(json.loads(json.dumps(content)), schema.CPU_RESULTS) == []


def test_a_failed_row_names_the_log_of_its_step():
    broken = fragment() | {"failures": [{"row": "a", "status": "failed", "reason": "no memory"}]}
    gate = {"open": True, "dtypes": [], "reason": ""}
    log = {
        "name": "clips small int8 2",
        "status": "rows failed",
        "reason": "",
        "seconds": 1,
        "limit": 2,
        "log": "it.log",
    }
    content = results.merge(
        smoke=False,
        complete=True,
        seconds=1,
        steps=[log],
        fragments={log["name"]: broken},
        gate=gate,
        threads=(2,),
        full=False,
    )
    assert content["failed"] == ["clips: a: no memory (log: it.log)"]
    assert not content["ok"]


def test_shares_are_of_the_same_number_of_threads():
    step = {"bytes": {"total": 90_000_000}, "ms_median": 10.0, "ms_p95": 10.0, "ms_n": 1}
    content = merged(
        {
            "read 2": fragment(read(2, 30.0)),
            "decode small 2": fragment(row("a", threads=2, **step)),
            "decode small 1": fragment(row("b", threads=1, **step)),
        }
    )
    two, one = content["sections"]["decode"]["rows"]
    assert (two["achieved_gb_per_s"], two["share_of_read"]) == (9.0, 0.3)
    # Nothing was read with one thread: no share rather than a guess.
    assert (one["achieved_gb_per_s"], one["share_of_read"]) == (9.0, None)


def test_verdicts():
    rows = [*vectors("small", "bfloat16", 27.0), *vectors("large", "bfloat16", 24.1)]
    rows += [*vectors("small", "int8", 29.0), *vectors("large", "int8", 23.9)]
    checks = [row("semantic float32 nano", ok=True), row("codec nano", ok=True)]
    checks += [logits(dtype, 0.01) for dtype in ("bfloat16", "int8", "int4")]
    checks.append(logits("float32", 1e-7))
    large = [logits(dtype, 0.02) for dtype in ("bfloat16", "int8")] + [logits("float32", 9e-7)]
    same = {"threads": 2, "stage": "codec"}
    content = merged(
        {
            "gate": fragment(*checks),
            "accuracy": fragment(*large),
            "read 2": fragment(read(2, 30.0)),
            "linear 2": fragment(*rows),
            "clips small int8 2": fragment(clip("small", 2.0), clip("small", 1.5, voice=False)),
            "clips small int8 1": fragment(clip("small", 3.0, threads=1)),
            "peers small": fragment(peer("bark", "small", 11.9), peer("transformers", "small", 1.0)),
            "stages small 2": fragment(
                row("codec cpu", engine="cpu", ms_median=100.0, **same),
                row("codec torch", engine="torch", ms_median=250.0, **same),
                *(
                    row(f"fine {engine} {dtype}", size="small", dtype=dtype, engine=engine, stage="fine", ms_median=ms)
                    for engine, dtype, ms in (
                        ("cpu", "int8", 70.0),
                        ("cpu", "bfloat16", 90.0),
                        ("torch", "float32", 100.0),
                        ("torch", "bfloat16", 80.0),
                    )
                ),
            ),
            "load": fragment(row("warm", size="small", dtype="int8", kind="warm", load_s_median=1.2)),
        }
    )
    by_name = verdicts(content)
    assert by_name["vector products of a layer, bfloat16, share of read bandwidth"] == (0.8033, "met")
    assert by_name["vector products of a layer, int8, share of read bandwidth"] == (0.7967, "missed")
    assert by_name["small int8 real-time factor, 10 s, with a voice"] == (2.0, "met")
    assert by_name["small int8, times the speed of bark, with a voice"] == (5.95, "missed")
    assert by_name["large int8, times the speed of bark, with a voice"] == (None, "not run")
    assert by_name["codec, times the speed of torch"] == (2.5, "met")
    assert by_name["small int8, times the speed of transformers, with a voice"] == (0.5, "missed")
    assert by_name["slowest stage, any dtype, over the torch engine in its faster dtype"] == (1.125, "missed")
    assert by_name["float32 against the torch engine, checks that failed"] == (0.0, "met")
    assert by_name["float32 logits, rms ratio to torch"] == (9e-7, "met")
    assert by_name["bfloat16 logits, rms ratio to float32"] == (0.02, "missed")
    assert by_name["int8 logits, rms ratio to float32"] == (0.02, "met")
    assert by_name["int4 logits, rms ratio to float32"] == (None, "not run")
    assert len(by_name) == len(TARGETS)


def test_what_was_not_measured_has_no_verdict():
    content = merged({"linear 2": fragment(*vectors("small", "int8", 30.0))})
    assert {verdict for _, verdict in verdicts(content).values()} == {"not run"}
    assert all(target["reason"] for target in content["targets"])


def test_the_table_shows_peers_beside_clips():
    content = merged(
        {"clips small int8 2": fragment(clip("small", 2.0)), "peers small": fragment(peer("bark", "small", 9))}
    )
    page = table.render(content)
    assert "## End to end" in page and "## Peers" in page and "| bark small" in page


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_the_plan_holds_what_the_targets_need(cores):
    threads = steps.count_threads(cores)
    assert threads == ((1,) if cores == 1 else (1, cores))
    plan = steps.plan_steps(threads)
    names = [step.name for step in plan]
    assert len(names) == len(set(names))
    assert names.index("gate") < min(i for i, step in enumerate(plan) if step.timed)
    assert {*steps.FULL} <= {*names}
    for needed in (
        f"read {cores}",
        f"linear {cores}",
        f"clips small int8 {cores}",
        f"clips large int8 {cores}",
        "load",
    ):
        assert needed in names
    assert {step.section for step in steps.plan_smoke(threads)} == {step.section for step in plan}


def bare_run(folder: Path, *, full: bool) -> CpuRun:
    return CpuRun(smoke=True, folder=folder, work=folder, only=(), total=600, threads=(1, 2), full=full)


def test_what_takes_many_minutes_is_run_only_if_asked_for(tmp_path):
    step = next(step for step in steps.plan_steps((1, 2)) if step.name in steps.FULL)
    assert "--full" in str(bare_run(tmp_path, full=False).why_skip(step))
    assert bare_run(tmp_path, full=True).why_skip(step) is None


def test_a_sections_process_has_the_steps_threads(tmp_path, monkeypatch):
    here, seen = bare_run(tmp_path, full=False), {}

    def start(name: str, command: list[str], log: Path, limit: float, env: dict[str, str]) -> None:
        seen.update(env, command=command)

    monkeypatch.setattr("benchmarks.runner.start", start)
    here.start_section(next(step for step in steps.plan_steps((1, 2)) if step.name == "read 2"), 10)
    assert (seen["BARKFAST_THREADS"], seen["OMP_NUM_THREADS"]) == ("2", "2")
    assert seen["command"][-2:] == ["--threads", "2"]
    assert Path(seen["BARKFAST_CACHE"]).parent == here.models


def run_benchmark(folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.cpu", "--smoke", "--results", str(folder), *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    files = list(folder.glob("*.json"))
    return result, json.loads(files[0].read_text()) if files else {}


@needs_native
def test_everything_runs(tmp_path):
    result, content = run_benchmark(tmp_path)
    assert result.returncode == 0, result.stdout[-3000:]
    assert schema.find_problems(content, schema.CPU_RESULTS) == []
    assert content["ok"] and content["smoke"] and content["failed"] == []
    # Without the reference or transformers, or a recognizer, these have rows that were not run, and no others.
    failures = [f for section in content["sections"].values() for f in section["failures"]]
    assert {f["status"] for f in failures} <= {"not run"}
    assert all(f["step"] == "peers small" or "phones heard" in f["row"] for f in failures), failures
    assert {*content["sections"]} == {step.section for step in steps.plan_steps((1,))} - {"environment"}
    assert all(section["rows"] or name == "peers" for name, section in content["sections"].items())
    assert content["gate"]["dtypes"] == [*steps.DTYPES]
    assert "The numbers mean nothing" in (tmp_path / f"{next(tmp_path.glob('*.json')).stem}.md").read_text()


@needs_native
def test_more_threads_than_cores_are_refused(tmp_path):
    result, _ = run_benchmark(tmp_path, "--threads", "4096")
    assert result.returncode == 2 and "expected numbers from 1 to" in result.stderr
