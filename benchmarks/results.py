"""One results file from what the steps wrote, under a name that no other run has."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.budget import Budget
from benchmarks.record import write_json
from benchmarks.saving import copy_out, replace_file
from benchmarks.targets import find_targets, judge

# The version of the format that barkfast/bench/schema.json describes, of results whose kind is "sections".
SCHEMA = 1
SMOKE_DEVICE = {"cpu": "cpu (smoke)", "cuda": "interpreter (smoke)"}
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


def merge(
    *,
    budget: Budget,
    smoke: bool,
    complete: bool,
    seconds: float,
    steps: list[dict[str, Any]],
    fragments: Mapping[str, Mapping[str, Any]],
    gate: Mapping[str, Any],
    notes: Sequence[str] = (),
    tests: Mapping[str, Any] | None = None,
    sanitizer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All of a run, judged by what its budget measures.

    Args:
        fragments: what each step's process wrote.
        notes: what a reader of the times must know.
    """
    sections = join_fragments(fragments)
    environment = take_environment(sections)
    device = (environment or {}).get("device", {})
    ceilings = find_ceilings(sections, device)
    add_shares(sections, ceilings)
    results = {
        "schema": SCHEMA,
        "kind": "sections",
        "call": budget.name,
        "threads": list(budget.threads),
        "smoke": smoke,
        "complete": complete,
        "ok": False,
        "seconds": round(seconds, 1),
        "device": device.get("name") or "unknown",
        "environment": environment,
        "gate": dict(gate),
        "notes": list(notes),
        "ceilings": ceilings,
        "steps": steps,
        "sections": sections,
        "tests": dict(tests or NO_TESTS),
        "sanitizer": dict(sanitizer or NO_SANITIZER),
    }
    results["targets"] = judge(results, find_targets(budget.name, {step.name for step in budget.steps}))
    results["failed"] = find_failures(results)
    results["ok"] = complete and not results["failed"]
    return results


def join_fragments(fragments: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The steps' files by section; every row and failure names its step, and `reason` says what is not complete."""
    joined: dict[str, dict[str, Any]] = {}
    for name, fragment in fragments.items():
        empty: dict[str, Any] = {"complete": True, "reason": "", "rows": [], "failures": []}
        section = joined.setdefault(name.partition(" ")[0], empty)
        section["rows"] += [row | {"step": name} for row in fragment["rows"]]
        section["failures"] += [failure | {"step": name} for failure in fragment["failures"]]
        if not fragment["complete"]:
            section["complete"] = False
            section["reason"] += f"{'; ' if section['reason'] else ''}{name}: {fragment.get('reason') or 'ended early'}"
    return joined


def take_environment(sections: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The environment, which is a section of its own only if it could not be found out."""
    rows = sections.get("environment", {"rows": []})["rows"]
    if not rows:
        return None
    del sections["environment"]
    return {key: value for key, value in rows[0].items() if key not in ("row", "step")}


def find_ceilings(sections: Mapping[str, Any], device: Mapping[str, Any]) -> dict[str, Any]:
    """The device's measured and promised rates; reading also by the number of a CPU's threads."""
    rows = sections.get("read", {"rows": []})["rows"]
    by_threads: dict[str, float] = {}
    for row in rows:
        if row.get("threads"):
            key = str(row["threads"])
            by_threads[key] = max(by_threads.get(key, 0.0), row["gb_per_s"])

    def best(unit: str, copies: bool = False) -> float | None:
        return max((r[unit] for r in rows if unit in r and r["row"].startswith("copy") == copies), default=None)

    return {
        "read_gb_per_s": best("gb_per_s"),
        "read_gb_per_s_by_threads": by_threads,
        "copy_gb_per_s": best("gb_per_s", True),
        "bf16_tflop_per_s": best("tflop_per_s"),
        "datasheet_gb_per_s": device.get("datasheet_gb_per_s"),
    }


def add_shares(sections: Mapping[str, Any], ceilings: Mapping[str, Any]) -> None:
    """Give every row with bytes and a time per pass over them its rate, and its share of the machine's.

    Of the machine's rate as it was measured in turn with the row, where it was: on a shared machine it comes and goes.
    """
    for row in (row for section in sections.values() for row in section["rows"]):
        ms = row["us_median"] / 1e3 if "us_median" in row else row.get("ms_median")
        if not isinstance(row.get("bytes"), dict) or not ms:
            continue
        rate = row["bytes"]["total"] / ms / 1e6
        row["achieved_gb_per_s"] = round(rate, 2)
        read = ceilings["read_gb_per_s"]
        if row.get("threads"):
            read = ceilings["read_gb_per_s_by_threads"].get(str(row["threads"]))
        shares = {"read": row["read_ms"] / ms if "read_ms" in row else rate / read if read else None}
        if ceilings["datasheet_gb_per_s"]:
            shares["datasheet"] = rate / ceilings["datasheet_gb_per_s"]
        row |= {f"share_of_{name}": None if share is None else round(share, 4) for name, share in shares.items()}


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
        found += [
            f"{name}: {failure['row']}: {failure['reason']} (log: {logs.get(failure['step'], 'none')})"
            for failure in section["failures"]
            if failure["status"] == "failed"
        ]
        wrong = [row for row in section["rows"] if row.get("ok") is False]
        found += [f"{name}: {row['row']}: wrong: {row} (log: {logs.get(row['step'])})" for row in wrong]
    found += [f"test: {failure['test']}: {failure['message']}" for failure in results["tests"]["failures"]]
    sanitizer = results["sanitizer"]
    if sanitizer["status"] in ("errors", "failed", "timeout"):
        found.append(f"sanitizer: {sanitizer['status']}: {sanitizer['reason']} (log: {logs.get('sanitizer', 'none')})")
    return found


def write(path: Path, results: Mapping[str, Any], table: str, logs: Path, out: Path | None) -> None:
    """The results and their table; and all of it, logs packed into one file, once more in `out`."""
    write_json(path, results)
    page = path.with_suffix(".md")
    replace_file(page, table.encode())
    if out is None:
        return
    try:
        copy_out(out, (path, page), logs)
    except OSError as error:
        print(f"could not copy the results to {out}: {error}", flush=True)
