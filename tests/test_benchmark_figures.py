"""What a run makes of what was measured: shares, verdicts, the file."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from barkfast import bench
from benchmarks import pages, results, targets
from benchmarks.budget import GPU, GPU_BUDGETS, cpu_budget
from benchmarks.gate import open_dtypes, read_gate
from benchmarks.plan import Plan


def row(name: str, **entries: Any) -> dict[str, Any]:
    return {"row": name, **entries}


def merged(call: str = "gpu", **sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Results of a call with nothing but the given sections' rows."""
    fragments = {name: {"rows": rows, "failures": [], "complete": True} for name, rows in sections.items()}
    gate = {"open": True, "dtypes": ["float32"], "reason": ""}
    return results.merge(
        budget=GPU_BUDGETS[call], smoke=False, complete=True, seconds=1, steps=[], fragments=fragments, gate=gate
    )


def verdicts(content: dict[str, Any]) -> dict[str, str]:
    return {target["name"]: target["verdict"] for target in content["targets"]}


def check(size: str, dtype: str, ok: bool = True, **entries: Any) -> dict[str, Any]:
    """A row of the gate."""
    return row(f"{size} {dtype}", size=size, dtype=dtype, ok=ok, **entries)


def test_what_the_gate_lets_through():
    rows = [check("nano", "float32"), check("small", "float32"), check("nano", "int8"), check("small", "int8")]
    fragment = {"rows": rows, "failures": [], "complete": True, "reason": ""}
    assert open_dtypes(fragment) == ("float32", "int8")
    assert read_gate(fragment) == {"open": True, "dtypes": ["float32", "int8"], "reason": ""}
    # int8 is wrong in one size, crashed there, or was not reached: the rest goes on
    assert open_dtypes(fragment | {"rows": [*rows[:3], check("small", "int8", ok=False)]}) == ("float32",)
    crashed = {"row": "small int8", "status": "failed", "reason": "SIGSEGV"}
    assert open_dtypes(fragment | {"rows": rows[:3], "failures": [crashed]}) == ("float32",)
    assert open_dtypes(fragment | {"rows": rows[:3], "complete": False}) == ("float32",)
    # float32 is wrong, crashed, or was not reached: nothing does
    assert open_dtypes(fragment | {"rows": [check("nano", "float32", ok=False), *rows[1:]]}) == ()
    assert open_dtypes(fragment | {"failures": [crashed | {"row": "small float32"}]}) == ()
    assert open_dtypes(fragment | {"rows": rows[2:]}) == ()
    assert open_dtypes({"rows": [], "failures": [], "complete": True}) == ()


def decode_rows(microseconds: float, dtype: str = "bfloat16", count: int = 4) -> list[dict[str, Any]]:
    same = {"size": "large", "dtype": dtype, "way": "graphs", "bytes": {"total": 670_000_000}}
    return [row(f"large {dtype} {i}", us_median=microseconds - i, **same) for i in range(count)]


def test_verdicts_of_the_deciding_call():
    clips = [
        row(f"{dtype}", size="large", dtype=dtype, voice=True, real_time_factor_median=factor)
        for dtype, factor in (("bfloat16", 0.06), ("int8", 0.045))
    ]
    # Without a voice it is another clip.
    clips.append(row("no voice", size="large", dtype="bfloat16", voice=False, real_time_factor_median=0.9))
    slow = row("direct", us_median=9999.0, size="large", dtype="bfloat16", way="direct launches")
    memory = row("large bfloat16, memory", size="large", dtype="bfloat16", peak_reserved_bytes=3.1e9)
    content = merged(
        decode=[*decode_rows(245), *decode_rows(201, "int8"), slow],
        clips=[*clips, memory],
    )
    by_name = verdicts(content)
    assert by_name["large bfloat16 step, batch 1, slowest"] == "met"
    assert by_name["large int8 step, batch 1, slowest"] == "missed"
    assert by_name["large bfloat16 real-time factor, 10 s, with a voice"] == "met"
    assert by_name["large int8 real-time factor, 10 s, with a voice"] == "met"
    assert by_name["large int8 real-time factor, 10 s, with a voice, goal"] == "missed"
    assert by_name["large bfloat16, memory reserved at most, all stages resident"] == "missed"
    assert by_name["GPU tests that failed"] == "not run"
    # What the other call measures is no target of this one.
    assert not {name for name in by_name if "batch 64" in name or "speed of" in name or "sanitizer" in name}


def test_verdicts_of_the_full_call():
    factors = {"barkfast bfloat16": 0.06, "bark": 0.9, "compiled": 0.1}
    peers = [row(name, real_time_factor_median=factor) for name, factor in factors.items()]
    content = merged(
        "gpu-full",
        peers=peers,
        batch=[row("large bfloat16 clips, batch 64", size="large", batch=64, times_real_time=150.0)],
    )
    by_name = verdicts(content)
    assert by_name["large bfloat16, times the speed of bark"] == "met"
    assert by_name["large bfloat16, times the speed of compiled"] == "missed"
    assert by_name["large bfloat16, times the speed of transformers"] == "not run"
    assert by_name["large bfloat16, batch 64, times real time"] == "met"
    assert by_name["waits for the device per token"] == "not run"
    assert {*by_name} | {*verdicts(merged())} == {target.name for target in targets.GPU_TARGETS}
    # Without us in the same run there is nothing to compare with.
    assert verdicts(merged("gpu-full", peers=peers[1:]))["large bfloat16, times the speed of bark"] == "not run"


def test_the_step_that_is_judged_is_the_one_users_get():
    best = [dict(r, row=f"best {i}", way="best", us_median=200.0) for i, r in enumerate(decode_rows(0))]
    content = merged(decode=[*decode_rows(500), *best])
    assert content["targets"][0]["value"] == 200.0
    # Where the best was not timed to its end, the default counts.
    assert merged(decode=[*decode_rows(500), *best[:3]])["targets"][0]["value"] == 500.0


@pytest.mark.parametrize(
    ("device", "read", "datasheet", "limit"),
    [
        ("NVIDIA H100 80GB HBM3", 2000.0, 3350, 245),
        ("NVIDIA H200", 2 * 3124.0, 4800, 122.5),
        ("NVIDIA H200", None, 4800, 245 * 3350 / 4800),
        ("some GPU", None, None, 245),
    ],
)
def test_a_steps_limit_follows_the_device(device, read, datasheet, limit):
    ceilings = {"read_gb_per_s": read, "datasheet_gb_per_s": datasheet}
    content = {"device": device, "ceilings": ceilings, "sections": {}, "tests": results.NO_TESTS}
    (line,) = targets.judge(content | {"sanitizer": results.NO_SANITIZER}, targets.GPU_TARGETS[:1])
    assert line["target"] == pytest.approx(limit)


def test_a_verdict_that_fails_takes_nothing_with_it(monkeypatch):
    def fail(_: Any) -> Any:
        raise KeyError("us_median")

    broken = targets.Target("broken", 1, "us", fail)
    lines = targets.judge(merged(decode=decode_rows(200)), [broken, *targets.GPU_TARGETS])
    assert lines[0]["verdict"] == "not run" and "KeyError" in lines[0]["reason"]
    assert lines[1]["verdict"] == "met"


def test_tests_that_were_cut_off_are_not_green():
    whole = {"passed": 9, "failed": 0, "skipped": 0, "failures": [], "skips": {}, "files": {"a": "ended"}}
    cut = whole | {"files": {"a": "ended", "b": "not run to its end: the time was spent at b::test"}}
    failed = cut | {"failures": [{"test": "a::test", "message": "no"}]}
    assert targets.failed_tests({"tests": whole}) == (0.0, "")
    assert targets.failed_tests({"tests": cut})[0] is None
    assert targets.failed_tests({"tests": failed})[0] == 1.0


def test_what_the_gate_closes_of_the_kernels(tmp_path):
    general = {"rows": [check("nano", "float32")], "failures": [], "complete": True, "reason": ""}
    right = [row(f"{name} CUDA kernels", ok=True) for name in ("float32", "logits bfloat16", "logits int8")]
    cuda = {"rows": [*right, row("C8 C4, fused head", ok=False)], "failures": [], "complete": True}
    triton = {"rows": [row("T1 trigger first", ok=True)], "failures": [], "complete": False}
    assert read_gate(general, cuda, triton)["wrong"] == [["", "C8 C4, fused head"]]
    # int8 was not reached, and a variant crashed.
    crashed = [{"row": "T2 carve-out", "status": "failed", "reason": "failed: ended with signal SIGSEGV"}]
    # All of the time was spent at another, and one is not for this device.
    crashed.append({"row": "T3 one trip", "status": "failed", "reason": "timeout: ended after its limit of 60 s"})
    crashed.append({"row": "T4 weights to L2", "status": "not run", "reason": "no such device"})
    gate = read_gate(general, cuda | {"rows": right[:2]}, triton | {"failures": crashed})
    assert gate["open"] and gate["wrong"] == [["", "T2 carve-out"], ["int8", "CUDA kernels"]]

    plan = Plan(smoke=True, models=tmp_path, work=tmp_path, deadline=0, wrong=tuple(map(tuple, gate["wrong"])))
    refused = {
        name: bool(plan.why_refused(name, dtype))
        for name, dtype in {
            "T1 trigger first, semantic 300": "int8",
            "T2 carve-out, semantic 300": "bfloat16",
            "C3 C2, one trip, coarse 917": "bfloat16",
            "C3 C2, one trip, coarse 300": "int8",
            "large int8 coarse 300 graphs, CUDA kernels": "int8",
            "C4 int8": None,
        }.items()
    }
    assert [*refused.values()] == [False, True, False, True, True, True]


def test_what_is_incomplete_has_no_verdict():
    content = merged(decode=decode_rows(100, count=3))
    target = content["targets"][0]
    assert (target["verdict"], target["value"]) == ("not run", None)
    assert target["reason"]


def test_shares_of_the_bandwidth():
    fragments = {
        "environment": {
            "rows": [row("environment", device={"name": "NVIDIA H100 80GB HBM3", "datasheet_gb_per_s": 3350})],
            "failures": [],
            "complete": True,
        },
        "read": {
            "rows": [
                row("read by torch.sum", gb_per_s=2800.0, threads=0),
                row("read by torch.mv", gb_per_s=3000.0, threads=0),
                row("copy from device to device", gb_per_s=3100.0, threads=0),
            ],
            "failures": [],
            "complete": True,
        },
        "decode": {"rows": decode_rows(300, count=1), "failures": [], "complete": True},
    }
    rest = {"budget": GPU, "steps": [], "gate": {"open": True, "dtypes": [], "reason": ""}}
    content = results.merge(smoke=False, complete=True, seconds=1, fragments=fragments, **rest)
    timed = content["sections"]["decode"]["rows"][0]
    assert timed["achieved_gb_per_s"] == 2233.33
    assert (timed["share_of_read"], timed["share_of_datasheet"]) == (0.7444, 0.6667)
    assert content["device"] == "NVIDIA H100 80GB HBM3"
    # nothing known of the device: no share rather than a guess
    del fragments["environment"], fragments["read"]
    content = results.merge(smoke=False, complete=True, seconds=1, fragments=fragments, **rest)
    timed = content["sections"]["decode"]["rows"][0]
    assert timed["share_of_read"] is None and "share_of_datasheet" not in timed


def test_results_are_never_overwritten(tmp_path):
    paths = [results.claim_path(tmp_path, "NVIDIA H100 80GB HBM3", "2030-01-02") for _ in range(3)]
    assert [path.name for path in paths] == [
        "nvidia-h100-80gb-hbm3-2030-01-02.json",
        "nvidia-h100-80gb-hbm3-2030-01-02-2.json",
        "nvidia-h100-80gb-hbm3-2030-01-02-3.json",
    ]
    content = merged()
    out = tmp_path / "out"
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "decode.log").write_text("what it printed")
    results.write(paths[1], content, pages.render(content), logs, out)
    assert json.loads(paths[1].read_text())["schema"] == results.SCHEMA
    assert paths[0].read_text() == ""
    assert json.loads((out / paths[1].name).read_text()) == json.loads(paths[1].read_text())
    with tarfile.open(out / "logs.tgz") as archive:
        assert archive.extractfile("logs/decode.log").read() == b"what it printed"


@pytest.mark.parametrize("call", ["cpu", "gpu", "gpu-full"])
def test_results_are_what_the_schema_says(call: str):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (the extra `test`)")
    whole = json.loads((Path(bench.__file__).parent / "schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator({"$ref": "#/$defs/sections", "$defs": whole["$defs"]})
    content = json.loads(json.dumps(merged_cpu({}) if call == "cpu" else merged(call, decode=decode_rows(100))))
    assert [*validator.iter_errors(content)] == []
    for key in content:
        assert [*validator.iter_errors({k: v for k, v in content.items() if k != key})], key
    assert [*validator.iter_errors(content | {"ok": "yes"})] and [*validator.iter_errors(content | {"more": 1})]


# --- on a CPU


def merged_cpu(fragments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Results with nothing but the given steps' rows."""
    gate = {"open": True, "dtypes": ["float32"], "reason": ""}
    return results.merge(
        budget=cpu_budget((1, 2)), smoke=False, complete=True, seconds=1, steps=[], fragments=fragments, gate=gate
    )


def fragment(*rows: dict[str, Any], **entries: Any) -> dict[str, Any]:
    return {"rows": list(rows), "failures": [], "complete": True, **entries}


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


def values(content: dict[str, Any]) -> dict[str, tuple[float | None, str]]:
    return {target["name"]: (target["value"], target["verdict"]) for target in content["targets"]}


def test_steps_of_one_section_make_one_section():
    content = merged_cpu(
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
    assert content["ceilings"]["read_gb_per_s_by_threads"] == {"2": 30.0, "1": 25.0}


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
        budget=cpu_budget((2,)),
        smoke=False,
        complete=True,
        seconds=1,
        steps=[log],
        fragments={log["name"]: broken},
        gate=gate,
    )
    assert content["failed"] == ["clips: a: no memory (log: it.log)"]
    assert not content["ok"]


def test_shares_are_of_the_same_number_of_threads():
    step = {"bytes": {"total": 90_000_000}, "ms_median": 10.0, "ms_p95": 10.0, "ms_n": 1}
    content = merged_cpu(
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


def test_verdicts_on_a_cpu():
    rows = [*vectors("small", "bfloat16", 27.0), *vectors("large", "bfloat16", 24.1)]
    rows += [*vectors("small", "int8", 29.0), *vectors("large", "int8", 23.9)]
    checks = [check("small", dtype, rms_ratio=0.01) for dtype in ("bfloat16", "int8", "int4")]
    checks.append(check("small", "float32", rms_ratio=1e-7))
    large = [check("large", dtype, rms_ratio=0.02) for dtype in ("bfloat16", "int8")]
    large.append(check("large", "float32", rms_ratio=9e-7))
    same = {"threads": 2, "stage": "codec"}
    content = merged_cpu(
        {
            "gate": fragment(*checks),
            "gate large": fragment(*large),
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
    by_name = values(content)
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
    assert len(by_name) == len(targets.CPU_TARGETS)


def test_what_was_not_measured_has_no_verdict():
    content = merged_cpu({"linear 2": fragment(*vectors("small", "int8", 30.0))})
    assert {verdict for _, verdict in values(content).values()} == {"not run"}
    assert all(target["reason"] for target in content["targets"])


def test_the_table_shows_peers_beside_clips():
    content = merged_cpu(
        {"clips small int8 2": fragment(clip("small", 2.0)), "peers small": fragment(peer("bark", "small", 9))}
    )
    page = pages.render(content)
    assert "## End to end" in page and "## Peers" in page and "| bark small" in page
