"""cuda/probe.cu, which measures what a Hopper GPU does between two kernels: how it is built, what it printed."""

import json
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT
from benchmarks.sanitizer import find_tool

SOURCE = ROOT / "benchmarks" / "cuda" / "probe.cu"
# In the folder for logs.
PROGRAM = "probe"
# What tells the lines of a kind apart.
NAMES = {
    "device": (),
    "chain": ("name", "trigger", "how", "pdl", "carve", "kb"),
    "exchange": ("loaded", "floats", "blocks"),
}


def find_compiler() -> str | None:
    return find_tool("nvcc")


def build_command(compiler: str, program: Path) -> list[str]:
    """For compute capability 9.0, whose instructions it uses."""
    return [compiler, "-O3", "-std=c++17", "-gencode=arch=compute_90a,code=sm_90a", str(SOURCE), "-o", str(program)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Its lines as far as they are whole; anything else that was printed is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def read_fragment(path: Path, reason: str) -> dict[str, Any]:
    """As a section's: a row per line.

    Args:
        reason: why the program did not end by itself, if so.
    """
    lines = read_lines(path) if path.exists() else []
    rows = [{"row": name_of(line)} | line for line in lines if line.get("test") in NAMES]
    errors = [line for line in lines if "error" in line]
    failures = [
        {"row": f"line {line.get('line')}", "status": "failed", "reason": str(line["error"])[:300]} for line in errors
    ]
    return {
        "rows": rows,
        "failures": failures,
        "running": None,
        "complete": not reason and not errors,
        "reason": reason,
    }


def name_of(line: dict[str, Any]) -> str:
    """A row's name: "exchange, loaded 1, floats 1024, blocks 128"."""
    kind = line["test"]
    return ", ".join([kind, *(f"{key} {line.get(key)}" for key in NAMES[kind])])
