"""The schema of a result accepts valid results, and only those."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import barkfast
from bench.sample import not_run, red_result, sample_result

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (the extra `test`)")

SCHEMA = json.loads((Path(barkfast.__file__).parent / "bench" / "schema.json").read_text(encoding="utf-8"))


def problems(result: dict[str, Any]) -> list[str]:
    """The JSON paths at which a result, as it is in a file, violates the schema."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return sorted(error.json_path for error in validator.iter_errors(json.loads(json.dumps(result))))


def with_peer_missing() -> dict[str, Any]:
    result = sample_result()
    result["contenders"][1] = not_run()
    return result


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


RESULTS: dict[str, Callable[[], dict[str, Any]]] = {
    "complete": sample_result,
    "partial": lambda: sample_result("partial"),
    "gate red": red_result,
    "peer missing": with_peer_missing,
}


@pytest.mark.parametrize("kind", RESULTS)
def test_every_kind_of_result_is_taken(kind: str):
    assert problems(RESULTS[kind]()) == []


def test_any_key_that_is_missing_is_found():
    whole = sample_result()
    for key in whole:
        assert problems({k: v for k, v in whole.items() if k != key}), key


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], 2),
        (["kind"], "verify"),
        (["status"], "done"),
        (["seconds"], -1),
        (["environment", "date"], "yesterday"),
        (["environment", "device"], {}),
        (["case", "dtype"], "half"),
        (["case", "repeats"], 0),
        (["gate", "ok"], False),
        (["gate", "checks", 0, "ok"], None),
        (["limits", "read_gb_per_s"], 0),
        (["limits", "ways", 0, "unit"], "MB/s"),
        (["contenders", 0, "status"], "not run"),
        (["contenders", 0, "status"], "failed"),
        (["contenders", 0, "memory", "rss_bytes"], 1.5),
        (["contenders", 0, "clips", 0, "audio_s"], 0),
        (["contenders", 0, "clips", 0, "seconds"], {"semantic": 1.0}),
        (["contenders", 0, "stages", 0, "stage"], "text"),
        (["contenders", 0, "stages", 0, "share"], "high"),
        (["contenders", 0, "stages", 0, "note"], "one key too many"),
        (["batch", 0, "batch"], 0),
        (["batch", 0, "ms_per_step"], {"median": 1.0}),
    ],
    ids=str,
)
def test_a_wrong_value_is_found(path: list[Any], value: Any):
    result = sample_result()
    parent: Any = result
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    assert problems(result)


@pytest.mark.parametrize("key", ["contenders", "batch"])
def test_no_time_stands_beside_a_red_gate(key: str):
    result = red_result()
    result[key] = copy.deepcopy(sample_result()[key])
    assert problems(result)
