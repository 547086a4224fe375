"""What `make gpu` makes of what was measured: shares, verdicts, the file."""

import json
import tarfile
from typing import Any

import pytest

from benchmarks import results, schema, table, targets
from benchmarks.gate import open_dtypes, read_gate
from benchmarks.plan import Plan


def row(name: str, **entries: Any) -> dict[str, Any]:
    return {"row": name, **entries}


def merged(call: str = "gpu", **sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Results of a call with nothing but the given sections' rows."""
    fragments = {name: {"rows": rows, "failures": [], "complete": True} for name, rows in sections.items()}
    gate = {"open": True, "dtypes": ["float32"], "reason": ""}
    return results.merge(
        smoke=False,
        complete=True,
        seconds=1,
        steps=[],
        fragments=fragments,
        gate=gate,
        tests=None,
        sanitizer=None,
        call=call,
    )


def verdicts(content: dict[str, Any]) -> dict[str, str]:
    return {target["name"]: target["verdict"] for target in content["targets"]}


def test_what_the_gate_lets_through():
    rows = [row("semantic float32", ok=True), row("logits bfloat16", ok=True, dtype="bfloat16")]
    fragment = {"rows": rows, "failures": [], "complete": True, "reason": ""}
    assert open_dtypes(fragment) == ("float32", "bfloat16")
    assert read_gate(fragment) == {"open": True, "dtypes": ["float32", "bfloat16"], "reason": ""}
    # bfloat16 is wrong, or could not be tried: the rest goes on
    half = fragment | {"rows": [rows[0], rows[1] | {"ok": False}]}
    assert open_dtypes(half) == ("float32",)
    broken = fragment | {"rows": rows[:1], "failures": [{"row": "logits bfloat16", "status": "failed", "reason": ""}]}
    assert open_dtypes(broken) == ("float32",)
    # float32 is wrong, crashed, or was not reached: nothing does
    assert open_dtypes(fragment | {"rows": [rows[0] | {"ok": False}, rows[1]]}) == ()
    assert open_dtypes(fragment | {"failures": [{"row": "fine float32", "status": "failed", "reason": ""}]}) == ()
    assert open_dtypes(fragment | {"complete": False}) == ()
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
        end_to_end=[*clips, memory],
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
    content = merged("gpu-full", peers=peers, batch=[row("large bfloat16 clips, batch 64", times_real_time=150.0)])
    by_name = verdicts(content)
    assert by_name["large bfloat16, times the speed of bark"] == "met"
    assert by_name["large bfloat16, times the speed of compiled"] == "missed"
    assert by_name["large bfloat16, times the speed of transformers"] == "not run"
    assert by_name["large bfloat16, batch 64, times real time"] == "met"
    assert by_name["waits for the device per token"] == "not run"
    covered = {target.name for target in targets.TARGETS if target.name in by_name}
    assert covered | {*verdicts(merged())} == {target.name for target in targets.TARGETS}
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
    (line,) = targets.judge(content | {"sanitizer": results.NO_SANITIZER}, targets.TARGETS[:1])
    assert line["target"] == pytest.approx(limit)


def test_a_verdict_that_fails_takes_nothing_with_it(monkeypatch):
    def fail(_: Any) -> Any:
        raise KeyError("us_median")

    broken = targets.Target("broken", 1, "us", fail)
    lines = targets.judge(merged(decode=decode_rows(200)), [broken, *targets.TARGETS])
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
    general = {"rows": [row("semantic float32", ok=True)], "failures": [], "complete": True, "reason": ""}
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
        "bandwidth": {
            "rows": [row("read by torch.sum", gb_per_s=2800.0), row("read by a Triton kernel", gb_per_s=3000.0)],
            "failures": [],
            "complete": True,
        },
        "decode": {"rows": decode_rows(300, count=1), "failures": [], "complete": True},
    }
    rest = {"steps": [], "tests": None, "sanitizer": None, "gate": {"open": True, "dtypes": [], "reason": ""}}
    content = results.merge(smoke=False, complete=True, seconds=1, fragments=fragments, **rest)
    timed = content["sections"]["decode"]["rows"][0]
    assert timed["achieved_gb_per_s"] == 2233.3
    assert (timed["share_of_read"], timed["share_of_datasheet"]) == (0.7444, 0.6667)
    assert content["device"] == "NVIDIA H100 80GB HBM3"
    # nothing known of the device: no share rather than a guess
    del fragments["environment"], fragments["bandwidth"]
    content = results.merge(smoke=False, complete=True, seconds=1, fragments=fragments, **rest)
    timed = content["sections"]["decode"]["rows"][0]
    assert (timed["share_of_read"], timed["share_of_datasheet"]) == (None, None)


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
    results.write(paths[1], content, table.render(content), logs, out)
    assert json.loads(paths[1].read_text())["schema"] == schema.VERSION
    assert paths[0].read_text() == ""
    assert json.loads((out / paths[1].name).read_text()) == json.loads(paths[1].read_text())
    with tarfile.open(out / "logs.tgz") as archive:
        assert archive.extractfile("logs/decode.log").read() == b"what it printed"


def test_the_schema_finds_what_is_wrong():
    content = merged(decode=decode_rows(100))
    assert schema.find_problems(content) == []
    assert schema.find_problems(json.loads(json.dumps(content))) == []
    assert schema.find_problems(content | {"ok": "yes"}) == ["results.ok is 'yes', not bool"]
    lacking = {key: value for key, value in content.items() if key != "targets"}
    assert schema.find_problems(lacking) == ["results lacks targets"]
    broken = content | {"targets": [content["targets"][0] | {"value": float("nan")}]}
    assert schema.find_problems(broken) == ["results.targets[0].value is nan, not number?"]
