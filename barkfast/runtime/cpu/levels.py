"""Which instruction-set level multiplies many rows fastest: measured once, then cached beside the packed weights."""

import json
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from barkfast.cache import cache_folder
from barkfast.files import replacing
from barkfast.runtime.cpu.fork_lock import ForkLock
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.cpu.threads import count_threads
from barkfast.runtime.engines import choose_isa

CPUINFO = Path("/proc/cpuinfo")
# dtype -> levels with their own kernels for many rows, the one expected to be fastest last. The chip's feature flags do
# not tell which one is: on some chips with bfloat16 dot products, these are slower than to convert and multiply.
CANDIDATES = {
    "bfloat16": ("avx512_vnni", "avx512_bf16", "amx"),
    "int8": ("avx512_vnni", "amx"),
    "int4": ("avx512_vnni", "amx"),
}
# dtype -> the native module's name of the format of most matrices.
FORMATS = {"bfloat16": "bf16", "int8": "int8", "int4": "int4"}
# How many times as fast as the last level another one must be to be chosen: levels round differently, so chance must
# not decide between nearly equal ones.
MARGIN = 1.15
# One layer's output matrix of Bark-small, and enough input rows for the kernels for many rows.
ROWS, COLS, INPUTS = 768, 768, 192
ROUNDS = 4

_lock = ForkLock()
_known: dict[str, dict[str, Any]] = {}


def choose_level(dtype: str) -> str:
    """The level for a network of this dtype: $BARKFAST_CPU_ISA, else the fastest of several candidates, else the best.

    The first call measures for about 100 ms; the choice stays the same as long as it is cached.

    Raises: the errors of `choose_isa` and `count_threads`.
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
    """The cached choices for this CPU, not measured now: dtype -> {"level": name, "ms": {name: milliseconds}}."""
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
    """The choices as text for users."""
    if os.environ.get("BARKFAST_CPU_ISA"):
        return "as BARKFAST_CPU_ISA says"
    lines = []
    for dtype, entry in read_choices().items():
        times = ", ".join(f"{name} {ms} ms" for name, ms in entry["ms"].items())
        lines.append(f"{dtype} by {entry.get('level')} ({times})")
    return ", ".join(lines) or "nothing was measured, by the best instructions there are"


def name_cpu() -> str:
    """The processor's name, with family and model, because virtual machines often give a generic name."""
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
    """The cached choice, if it was made among exactly these levels with this number of threads."""
    entry = read_choices().get(dtype, {})
    same = sorted(entry.get("ms", {})) == sorted(names) and entry.get("threads") == count_threads()
    return entry if same and entry.get("level") in names else None


def _keep(dtype: str, entry: dict[str, Any]) -> dict[str, Any]:
    path = _path()
    if path is not None:
        content = {"cpu": name_cpu(), "levels": read_choices() | {dtype: entry}}
        # If this fails, the next start only has to measure again.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(json.dumps(content, indent=1).encode())
    return entry


def _measure(dtype: str, names: list[str]) -> dict[str, Any]:
    """Time all levels ROUNDS times, and choose by the best time of each."""
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
