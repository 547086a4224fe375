"""One results file from what the steps wrote, under a name that no other run has."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import schema
from benchmarks.budget import BUDGETS
from benchmarks.saving import copy_out, replace_file
from benchmarks.targets import TARGETS, Target, judge

SMOKE_DEVICE = "interpreter (smoke)"
NO_TESTS: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "skips": {}, "files": {}}
NO_SANITIZER: dict[str, Any] = {"status": "not run", "errors": None, "reason": "not reached"}


def slug(name: str) -> str:
    """A device's name for a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def claim_path(folder: Path, device: str, date: str) -> Path:
    """<device>-<date>.json, with -2, -3 and so on if that is taken; made empty, so that it stays taken."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / f"{slug(device)}-{date}{'' if number == 1 else f'-{number}'}.json"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            number += 1
            continue
        return path


def collect_sections(fragments: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sections' files, with the `reason` why one is not complete."""
    return {
        name: {
            "complete": fragment["complete"],
            "reason": fragment.get("reason", ""),
            "rows": [dict(row) for row in fragment["rows"]],
            "failures": list(fragment["failures"]),
        }
        for name, fragment in fragments.items()
    }


def take_environment(sections: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The environment, which is a section of its own only if it could not be found out."""
    rows = sections.get("environment", {"rows": []})["rows"]
    if not rows:
        return None
    del sections["environment"]
    return rows[0]


def describe_run(
    smoke: bool,
    complete: bool,
    seconds: float,
    environment: Mapping[str, Any] | None,
    gate: Mapping[str, Any],
    steps: list[dict[str, Any]],
    sections: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What the results of every run hold, but for `finish`."""
    return {
        "schema": schema.VERSION,
        "smoke": smoke,
        "complete": complete,
        "ok": False,
        "seconds": round(seconds, 1),
        "device": (environment or {}).get("device", {}).get("name") or "unknown",
        "environment": environment,
        "gate": dict(gate),
        "steps": steps,
        "sections": sections,
    }


def finish(results: dict[str, Any], targets: Sequence[Target], shape: Any) -> dict[str, Any]:
    """Add the verdicts, and what went wrong."""
    results["targets"] = judge(results, targets)
    results["failed"] = []
    results["failed"] = find_failures(results) + [f"schema: {p}" for p in schema.find_problems(results, shape)]
    results["ok"] = results["complete"] and not results["failed"]
    return results


def merge(
    *,
    smoke: bool,
    complete: bool,
    seconds: float,
    steps: list[dict[str, Any]],
    fragments: Mapping[str, Mapping[str, Any]],
    gate: Mapping[str, Any],
    tests: Mapping[str, Any] | None,
    sanitizer: Mapping[str, Any] | None,
    call: str = "gpu",
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """All of a call on a GPU, judged by what it measures.

    Args:
        call: its name among budget.BUDGETS.
        notes: what a reader of the times must know.
    """
    sections = collect_sections(fragments)
    environment = take_environment(sections)
    device = (environment or {}).get("device", {})
    ceilings = find_ceilings(sections, device)
    add_shares(sections, ceilings)
    results = {
        **describe_run(smoke, complete, seconds, environment, gate, steps, sections),
        "call": call,
        "notes": list(notes),
        "ceilings": ceilings,
        "tests": dict(tests or NO_TESTS),
        "sanitizer": dict(sanitizer or NO_SANITIZER),
    }
    return finish(results, [target for target in TARGETS if target.section in BUDGETS[call].names], schema.RESULTS)


def find_ceilings(sections: Mapping[str, Any], device: Mapping[str, Any]) -> dict[str, Any]:
    """The device's measured and promised rates."""
    rows = {row["row"]: row for row in sections.get("bandwidth", {"rows": []})["rows"]}
    reads = [row["gb_per_s"] for name, row in rows.items() if name.startswith("read")]
    return {
        "read_gb_per_s": max(reads) if reads else None,
        "copy_gb_per_s": rows.get("copy from device to device", {}).get("gb_per_s"),
        "bf16_tflop_per_s": rows.get("bfloat16 matrix product", {}).get("tflop_per_s"),
        "datasheet_gb_per_s": device.get("datasheet_gb_per_s"),
    }


def add_shares(sections: Mapping[str, Any], ceilings: Mapping[str, Any]) -> None:
    """Give every row with bytes and a time what it achieved, and which share of the ceilings that is."""
    for section in sections.values():
        for row in section["rows"]:
            if "us_median" not in row or "bytes" not in row:
                continue
            rate = row["bytes"]["total"] / row["us_median"] / 1e3
            row["achieved_gb_per_s"] = round(rate, 1)
            for name in ("read", "datasheet"):
                ceiling = ceilings[f"{name}_gb_per_s"]
                row[f"share_of_{name}"] = round(rate / ceiling, 4) if ceiling else None


def find_failures(results: Mapping[str, Any]) -> list[str]:
    """Everything that went wrong, a line each; what could not be run here is not among it."""
    found = []
    for step in results["steps"]:
        # Where rows failed they say more, below. Kernels that are not compiled in time are compiled where needed.
        late = step["status"] == "timeout" and step["name"].startswith("compile")
        if step["status"] in ("failed", "timeout") and not late:
            found.append(f"{step['name']}: {step['status']}: {step['reason']} (log: {step['log']})")
    logs = {step["name"]: step["log"] for step in results["steps"]}
    for name, section in results["sections"].items():
        # A section may be several steps' work; its rows then name theirs.
        found += [
            f"{name}: {failure['row']}: {failure['reason']} (log: {logs.get(failure.get('step', name), 'none')})"
            for failure in section["failures"]
            if failure["status"] == "failed"
        ]
        wrong = [row for row in section["rows"] if row.get("ok") is False]
        found += [f"{name}: {row['row']}: wrong: {row} (log: {logs.get(row.get('step', name))})" for row in wrong]
    if "tests" in results:
        found += [f"test: {failure['test']}: {failure['message']}" for failure in results["tests"]["failures"]]
    sanitizer = results.get("sanitizer", NO_SANITIZER)
    if sanitizer["status"] in ("errors", "failed", "timeout"):
        found.append(f"sanitizer: {sanitizer['status']}: {sanitizer['reason']} (log: {logs.get('sanitizer', 'none')})")
    return found


def write(path: Path, results: Mapping[str, Any], table: str, logs: Path, out: Path | None) -> None:
    """The results and their table; and all of it, logs packed into one file, once more in `out`."""
    replace_file(path, (json.dumps(results, indent=1) + "\n").encode())
    page = path.with_suffix(".md")
    replace_file(page, table.encode())
    if out is None:
        return
    try:
        copy_out(out, (path, page), logs)
    except OSError as error:
        print(f"could not copy the results to {out}: {error}", flush=True)
