"""What the results files hold."""

from typing import Any

VERSION = 1

# Key -> type, "?" for one that may be None; a list holds items of its one entry, "*" stands for any key.
ROW = {"row": "str"}
FAILURE = {"row": "str", "status": "str", "reason": "str"}
SECTION = {"complete": "bool", "reason": "str", "rows": [ROW], "failures": [FAILURE]}
STEP = {"name": "str", "status": "str", "reason": "str", "seconds": "number", "limit": "number", "log": "str"}
TARGET = {
    "name": "str",
    "value": "number?",
    "target": "number",
    "at_least": "bool",
    "unit": "str",
    "verdict": "str",
    "reason": "str",
}
TESTS = {
    "passed": "int",
    "failed": "int",
    "skipped": "int",
    "failures": [{"test": "str", "message": "str"}],
    "skips": {"*": "int"},
    "files": {"*": "str"},
}
COMMON = {
    "schema": "int",
    "smoke": "bool",
    "complete": "bool",
    "ok": "bool",
    "seconds": "number",
    "device": "str",
    "environment": "dict?",
    "gate": {"open": "bool", "dtypes": ["str"], "reason": "str"},
    "steps": [STEP],
    "sections": {"*": SECTION},
    "targets": [TARGET],
    "failed": ["str"],
}
# Of a run on a GPU.
RESULTS = COMMON | {
    "call": "str",
    "notes": ["str"],
    "ceilings": {"read_gb_per_s": "number?", "datasheet_gb_per_s": "number?", "bf16_tflop_per_s": "number?"},
    "tests": TESTS,
    "sanitizer": {"status": "str", "errors": "int?", "reason": "str"},
}
# Of a run on a CPU; bandwidth by the number of threads.
CPU_RESULTS = COMMON | {"threads": ["int"], "full": "bool", "ceilings": {"read_gb_per_s": {"*": "number"}}}
CHECKS = {
    "str": lambda v: isinstance(v, str),
    "bool": lambda v: isinstance(v, bool),
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v == v,
    "dict": lambda v: isinstance(v, dict),
}


def find_problems(value: Any, shape: Any = RESULTS, where: str = "results") -> list[str]:
    """Where `value` is not what `shape` says; empty if it is. Keys beyond the shape's are allowed."""
    if isinstance(shape, str):
        if shape.endswith("?") and value is None:
            return []
        return [] if CHECKS[shape.rstrip("?")](value) else [f"{where} is {value!r}, not {shape}"]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is not a list"]
        return [p for i, item in enumerate(value) for p in find_problems(item, shape[0], f"{where}[{i}]")]
    if not isinstance(value, dict):
        return [f"{where} is not an object"]
    problems = []
    for key, inner in shape.items():
        if key == "*":
            problems += [p for k, item in value.items() for p in find_problems(item, inner, f"{where}.{k}")]
        elif key not in value:
            problems.append(f"{where} lacks {key}")
        else:
            problems += find_problems(value[key], inner, f"{where}.{key}")
    return problems
