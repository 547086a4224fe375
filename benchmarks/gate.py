"""What the correctness gate's rows mean for the rest of a run."""

from collections.abc import Mapping
from typing import Any


def open_dtypes(fragment: Mapping[str, Any]) -> tuple[str, ...]:
    """The dtypes that may be timed, by what the gate wrote; none unless all of float32 is right."""
    rows = {row["row"]: row for row in fragment["rows"]}
    general = [row for name, row in rows.items() if not name.startswith("logits")]
    failed = [failure for failure in fragment["failures"] if not failure["row"].startswith("logits")]
    if failed or not fragment["complete"] or not general or not all(row["ok"] for row in general):
        return ()
    return ("float32", *(row["dtype"] for name, row in rows.items() if name.startswith("logits") and row["ok"]))


def read_gate(fragment: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the gate is open, for which dtypes, and if not why."""
    dtypes = open_dtypes(fragment)
    wrong = [row["row"] for row in fragment["rows"] if not row["ok"]]
    wrong += [f"{failure['row']} ({failure['reason']})" for failure in fragment["failures"]]
    reason = f"not right: {', '.join(wrong)[:400]}" if wrong else "" if dtypes else fragment["reason"]
    return {"open": bool(dtypes), "dtypes": list(dtypes), "reason": reason}
