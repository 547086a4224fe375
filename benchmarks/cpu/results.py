"""One results file from what the steps wrote: a section's rows are those of all its steps."""

from collections.abc import Mapping
from typing import Any

from benchmarks import schema
from benchmarks.cpu.targets import TARGETS
from benchmarks.results import collect_sections, describe_run, finish, take_environment


def join_fragments(fragments: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The steps' files by section; every row and failure names its step."""
    joined: dict[str, dict[str, Any]] = {}
    for name, fragment in fragments.items():
        section = joined.setdefault(
            name.partition(" ")[0], {"rows": [], "failures": [], "complete": True, "reason": ""}
        )
        section["rows"] += [row | {"step": name} for row in fragment["rows"]]
        section["failures"] += [failure | {"step": name} for failure in fragment["failures"]]
        if not fragment["complete"]:
            section["complete"] = False
            section["reason"] += f"{'; ' if section['reason'] else ''}{name}: {fragment.get('reason') or 'ended early'}"
    return joined


def find_ceilings(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The fastest that memory was read, by the number of threads."""
    best: dict[str, float] = {}
    for row in sections.get("read", {"rows": []})["rows"]:
        threads = str(row["threads"])
        best[threads] = max(best.get(threads, 0.0), row["gb_per_s"])
    return {"read_gb_per_s": best}


def add_shares(sections: Mapping[str, Any], ceilings: Mapping[str, Any]) -> None:
    """Give every row with bytes and a time per pass over them its rate, and its share of the machine's.

    Of the machine's rate as it was measured in turn with the row, where it was: on a shared machine it comes and goes.
    """
    for section in sections.values():
        for row in section["rows"]:
            if "bytes" not in row or "ms_median" not in row or "threads" not in row:
                continue
            rate = row["bytes"]["total"] / row["ms_median"] / 1e6
            ceiling = ceilings["read_gb_per_s"].get(str(row["threads"]))
            row["achieved_gb_per_s"] = round(rate, 2)
            share = row["read_ms"] / row["ms_median"] if "read_ms" in row else rate / ceiling if ceiling else None
            row["share_of_read"] = None if share is None else round(share, 4)


def merge(
    *,
    smoke: bool,
    complete: bool,
    seconds: float,
    steps: list[dict[str, Any]],
    fragments: Mapping[str, Mapping[str, Any]],
    gate: Mapping[str, Any],
    threads: tuple[int, ...],
    full: bool,
) -> dict[str, Any]:
    """All of a run on a CPU."""
    sections = collect_sections(join_fragments(fragments))
    environment = take_environment(sections)
    ceilings = find_ceilings(sections)
    add_shares(sections, ceilings)
    results = {
        **describe_run(smoke, complete, seconds, environment, gate, steps, sections),
        "threads": list(threads),
        "full": full,
        "ceilings": ceilings,
    }
    return finish(results, TARGETS, schema.CPU_RESULTS)
