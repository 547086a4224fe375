"""compute-sanitizer's memcheck on a run of the smallest model."""

import re
import shutil
from pathlib import Path
from typing import Any

PLACES = ("/usr/local/cuda/bin", "/opt/cuda/bin")
# Every allocation by itself, so that a read past its end is seen.
ENV = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
REFUSALS = ("Device not supported", "Unable to find", "No attachable process", "Failed to initialize", "not supported")


def find_tool(name: str = "compute-sanitizer") -> str | None:
    """A program of CUDA's, on the PATH or where CUDA puts it."""
    return shutil.which(name) or shutil.which(name, path=":".join(PLACES))


def wrap(tool: str, command: list[str]) -> list[str]:
    options = ("--tool", "memcheck", "--target-processes", "application-only", "--report-api-errors", "no")
    return [tool, *options, "--error-exitcode", "86", "--print-limit", "20", *command]


def read_log(log: Path, rows: int, status: str, reason: str) -> dict[str, Any]:
    """What the tool found: {"status": "clean" | "errors" | "not run" | "failed" | "timeout", ...}.

    Args:
        rows: how many rows the run under it came to.
        status, reason: how its process ended.
    """
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    summaries = [int(number) for number in re.findall(r"ERROR SUMMARY: (\d+) error", text)]
    if summaries and max(summaries) > 0:
        first = next((line.strip(" =") for line in text.splitlines() if re.search(r"Invalid|misaligned", line)), "")
        return {"status": "errors", "errors": max(summaries), "reason": first[:300], "rows": rows}
    if status == "timeout":
        return {"status": "timeout", "errors": None, "reason": reason, "rows": rows}
    refusal = next((line.strip(" =") for line in text.splitlines() if any(piece in line for piece in REFUSALS)), None)
    if refusal is not None and not rows:
        return {"status": "not run", "errors": None, "reason": f"the tool refuses: {refusal[:200]}", "rows": rows}
    if status != "ok" or not summaries:
        return {"status": "failed", "errors": None, "reason": reason or "the tool gave no summary", "rows": rows}
    return {"status": "clean", "errors": 0, "reason": "", "rows": rows}
