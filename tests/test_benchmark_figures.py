"""What `make gpu` makes of what was measured: shares, verdicts, the file."""

import json
from typing import Any

from benchmarks import results, schema, table, targets
from benchmarks.gate import open_dtypes, read_gate


def row(name: str, **entries: Any) -> dict[str, Any]:
    return {"row": name, **entries}


def merged(**sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Results with nothing but the given sections' rows."""
    fragments = {name: {"rows": rows, "failures": [], "complete": True} for name, rows in sections.items()}
    gate = {"open": True, "dtypes": ["float32"], "reason": ""}
    return results.merge(
        smoke=False, complete=True, seconds=1, steps=[], fragments=fragments, gate=gate, tests=None, sanitizer=None
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


def test_verdicts():
    clips = [
        row(f"{voice}", size="large", dtype="bfloat16", voice=voice, real_time_factor_median=0.07 + voice / 100)
        for voice in (False, True)
    ]
    peers = [row("transformers", real_time_factor_median=0.69), row("bark", real_time_factor_median=1.06)]
    slow = row("direct", us_median=9999.0, size="large", dtype="bfloat16", way="direct launches")
    memory = row("large bfloat16, memory", size="large", dtype="bfloat16", peak_reserved_bytes=3.1e9)
    content = merged(
        decode=[*decode_rows(320), *decode_rows(221, "int8"), slow],
        end_to_end=[*clips, memory],
        peers=peers,
        batch=[row("large bfloat16 clips, batch 64", times_real_time=80.0)],
    )
    by_name = verdicts(content)
    assert by_name["large bfloat16 step, batch 1, slowest"] == "met"
    assert by_name["large int8 step, batch 1, slowest"] == "missed"
    assert by_name["large bfloat16 real-time factor, 10 s, slower of voice and none"] == "met"
    assert by_name["large bfloat16, times the speed of bark"] == "met"
    assert by_name["large bfloat16, times the speed of transformers"] == "missed"
    assert by_name["large bfloat16, batch 64, times real time"] == "met"
    assert by_name["large bfloat16, memory reserved at most, all stages resident"] == "missed"
    assert by_name["waits for the device per token"] == "not run"
    assert by_name["GPU tests that failed"] == "not run"
    assert len(by_name) == len(targets.TARGETS)


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
    assert (out / paths[1].name).exists() and (out / "logs" / "decode.log").read_text() == "what it printed"


def test_the_schema_finds_what_is_wrong():
    content = merged(decode=decode_rows(100))
    assert schema.find_problems(content) == []
    assert schema.find_problems(json.loads(json.dumps(content))) == []
    assert schema.find_problems(content | {"ok": "yes"}) == ["results.ok is 'yes', not bool"]
    lacking = {key: value for key, value in content.items() if key != "targets"}
    assert schema.find_problems(lacking) == ["results lacks targets"]
    broken = content | {"targets": [content["targets"][0] | {"value": float("nan")}]}
    assert schema.find_problems(broken) == ["results.targets[0].value is nan, not number?"]
