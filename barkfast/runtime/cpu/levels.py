"""Which level of instructions multiplies many rows fastest here: measured once, and kept beside the packed weights."""

import json
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from barkfast.cache import cache_folder
from barkfast.files import replacing
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.cpu.threads import count_threads
from barkfast.runtime.cpu.turns import Turn
from barkfast.runtime.engines import choose_isa

CPUINFO = Path("/proc/cpuinfo")
# dtype -> levels that multiply many rows in ways of their own, the one that should be fastest last. Which one is so
# differs from chip to chip, whatever each says that it has: on some that have dot products of bfloat16 these are slower
# than to convert and multiply.
CANDIDATES = {
    "bfloat16": ("avx512_vnni", "avx512_bf16", "amx"),
    "int8": ("avx512_vnni", "amx"),
    "int4": ("avx512_vnni", "amx"),
}
# What the native module calls the format of most of their matrices.
FORMATS = {"bfloat16": "bf16", "int8": "int8", "int4": "int4"}
# Another than the last one must be so many times as fast: a tie must not be decided by chance, for the levels round
# differently.
MARGIN = 1.15
# One layer's output matrix of Bark-small, and enough rows to be many.
ROWS, COLS, INPUTS = 768, 768, 192
ROUNDS = 4

_lock = Turn()
_known: dict[str, dict[str, Any]] = {}


def choose_level(dtype: str) -> str:
    """The level for a network of this dtype: $BARKFAST_CPU_ISA, else the only one or the fastest of those there are.

    The first time it measures for some 100 ms; the same choice is made ever after, while the cache keeps it.
    Errors: those of `choose_isa` and `count_threads`.
    """
    best = choose_isa()
    names = [name for name in CANDIDATES.get(dtype, ()) if name in require_native().supported_isas()]
    if os.environ.get("BARKFAST_CPU_ISA") or len(names) < 2:
        return best
    with _lock:
        if dtype not in _known:
            _known[dtype] = _recall(dtype, names) or _keep(dtype, _measure(dtype, names))
        return _known[dtype]["level"]


def read_choices() -> dict[str, dict[str, Any]]:
    """What was chosen on this CPU: dtype -> {"level": name, "ms": {name: milliseconds}}; nothing is measured."""
    path = _path()
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("cpu") != name_cpu() or not isinstance(content.get("levels"), dict):
        return {}
    entries = content["levels"].items()
    return {dtype: entry for dtype, entry in entries if isinstance(entry, dict) and isinstance(entry.get("ms"), dict)}


def describe_choices() -> str:
    """The same for people."""
    if os.environ.get("BARKFAST_CPU_ISA"):
        return "as BARKFAST_CPU_ISA says"
    lines = []
    for dtype, entry in read_choices().items():
        times = ", ".join(f"{name} {ms} ms" for name, ms in entry["ms"].items())
        lines.append(f"{dtype} by {entry.get('level')} ({times})")
    return ", ".join(lines) or "nothing was measured, by the best instructions there are"


def name_cpu() -> str:
    """The processor's name; family and model beside it, for virtual machines hide the rest."""
    try:
        text = CPUINFO.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    fields = [re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE) for name in ("model name", "cpu family", "model")]
    name, family, model = (found and found.group(1).strip() for found in fields)
    if name and family and model:
        return f"{name} (family {family}, model {model})"
    return name or platform.processor() or platform.machine()


def _path() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "packed" / "levels.json"


def _recall(dtype: str, names: list[str]) -> dict[str, Any] | None:
    """What was chosen among these very levels, with as many threads."""
    entry = read_choices().get(dtype, {})
    same = sorted(entry.get("ms", {})) == sorted(names) and entry.get("threads") == count_threads()
    return entry if same and entry.get("level") in names else None


def _keep(dtype: str, entry: dict[str, Any]) -> dict[str, Any]:
    path = _path()
    if path is not None:
        content = {"cpu": name_cpu(), "levels": read_choices() | {dtype: entry}}
        # Without it the next start measures again, and that is all.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(json.dumps(content, indent=1).encode())
    return entry


def _measure(dtype: str, names: list[str]) -> dict[str, Any]:
    """Each level in turn, its best time."""
    native, threads = require_native(), count_threads()
    best = dict.fromkeys(names, float("inf"))
    for _ in range(ROUNDS):
        for name in names:
            what = (FORMATS[dtype], ROWS, COLS, INPUTS, 0, False, threads, 2)
            best[name] = min(best[name], *native.time_linear(*what, isa=name)["seconds"])
    chosen = names[-1]
    fastest = min(best, key=lambda name: best[name])
    if best[chosen] > MARGIN * best[fastest]:
        chosen = fastest
    return {
        "level": chosen,
        "threads": threads,
        "ms": {name: round(1e3 * seconds, 4) for name, seconds in best.items()},
    }
