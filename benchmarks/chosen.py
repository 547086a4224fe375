"""The kernels that this run found best for a dtype, for what is timed after the section `ab`."""

import json
from pathlib import Path
from typing import Any

# What `ab` leaves in the folder for logs when it has come to its end.
FILE = "tuned.json"
# Forces a variant by its label, in the process that it is set in.
VARIABLE = "BARKFAST_VARIANT"


def read_chosen(work: Path, dtype: str) -> dict[str, Any] | None:
    """The entry of a dtype, batch 1: label, variant, us and base_us by row; None where nothing was chosen."""
    try:
        entries = json.loads((work / FILE).read_text(encoding="utf-8"))["entries"]
    except (OSError, ValueError, KeyError):
        return None
    return next((entry for entry in entries if entry["dtype"] == dtype and entry.get("batch", 1) == 1), None)
