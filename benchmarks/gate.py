"""What the correctness gate's rows mean for the rest of a run."""

from collections.abc import Mapping
from typing import Any

# Rows of the CUDA kernels are called so; what they close are those kernels alone.
CUDA = "CUDA kernels"


def open_dtypes(fragment: Mapping[str, Any]) -> tuple[str, ...]:
    """The dtypes that may be timed, by what the gate wrote; none unless all of float32 is right."""
    rows = {row["row"]: row for row in fragment["rows"]}
    general = [row for name, row in rows.items() if not name.startswith("logits")]
    failed = [failure for failure in fragment["failures"] if not failure["row"].startswith("logits")]
    if failed or not fragment["complete"] or not general or not all(row["ok"] for row in general):
        return ()
    return ("float32", *(row["dtype"] for name, row in rows.items() if name.startswith("logits") and row["ok"]))


def find_wrong(fragments: tuple[Mapping[str, Any], ...]) -> list[list[str]]:
    """[dtype, kernels] that may not be timed: variants that were wrong, and CUDA kernels not found right in a dtype.

    An empty dtype stands for all of them. A variant that was not reached, or at which all of the section's time was
    spent, is not wrong: what times it compares it first.
    """
    rows = {row["row"]: bool(row["ok"]) for fragment in fragments for row in fragment["rows"]}
    failures = [failure for fragment in fragments for failure in fragment["failures"]]
    failed = [f["row"] for f in failures if f["status"] == "failed" and not f["reason"].startswith("timeout")]
    wrong = [["", name] for name in (*(name for name, ok in rows.items() if not ok), *failed) if CUDA not in name]
    for dtype in ("bfloat16", "int8"):
        if not (rows.get(f"float32 {CUDA}") and rows.get(f"logits {dtype} {CUDA}")):
            wrong.append([dtype, CUDA])
    return wrong


def read_gate(fragment: Mapping[str, Any], *kernels: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the gate is open, for which dtypes, and if not why.

    Args:
        kernels: what the section `variants` wrote, of which some kernels alone may be closed.
    """
    dtypes = open_dtypes(fragment)
    wrong = [row["row"] for row in fragment["rows"] if not row["ok"]]
    wrong += [f"{failure['row']} ({failure['reason']})" for failure in fragment["failures"]]
    reason = f"not right: {', '.join(wrong)[:400]}" if wrong else "" if dtypes else fragment.get("reason", "")
    gate = {"open": bool(dtypes), "dtypes": list(dtypes), "reason": reason}
    return gate | ({"wrong": find_wrong(kernels)} if kernels else {})
