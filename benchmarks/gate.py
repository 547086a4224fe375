"""What the checks of results mean for the rest of a run: which dtypes and kernels may be timed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

# Rows of the CUDA kernels are called so; what they close are those kernels alone.
CUDA = "CUDA kernels"


def open_dtypes(fragment: Mapping[str, Any]) -> tuple[str, ...]:
    """The dtypes that may be timed: right wherever float32 was compared, and float32 itself; else none."""
    rows, failures = fragment["rows"], fragment["failures"]
    right = Counter(row["dtype"] for row in rows if row["ok"])
    # A check is called after its size and dtype.
    wrong = {row["dtype"] for row in rows if not row["ok"]} | {failure["row"].split()[-1] for failure in failures}
    needed = right["float32"]
    if not needed or "float32" in wrong:
        return ()
    return tuple(dtype for dtype, count in right.items() if dtype not in wrong and count >= needed)


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
