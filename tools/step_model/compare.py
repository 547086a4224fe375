"""Compare modelled cycles with the recorded ones, to detect kernels that became slower.

The file: compiler with version -> variant -> dtype -> kernel -> cycles.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "step_cycles.json"
# For a compiler version that is in the file, and for one that is not.
TOLERANCE, UNKNOWN_TOLERANCE = 0.03, 0.10

# Source -> compiler with version.
Compilers = Mapping[str, str]
Golden = dict[str, dict[str, dict[str, dict[str, int]]]]


def read(path: Path = GOLDEN) -> Golden:
    """The recorded cycles; empty if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(compilers: Compilers, rows: Sequence[Mapping[str, Any]], path: Path = GOLDEN) -> None:
    """Record the cycles of these rows; entries of other compilers, variants and dtypes stay."""
    golden = read(path)
    replaced = {(compilers[row["source"]], row["variant"], row["dtype"]) for row in rows}
    for compiler, variant, dtype in replaced:
        golden.setdefault(compiler, {}).setdefault(variant, {})[dtype] = {}
    for row in rows:
        golden[compilers[row["source"]]][row["variant"]][row["dtype"]][row["kernel"]] = row["cycles"]
    path.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def slower(compilers: Compilers, rows: Sequence[Mapping[str, Any]], golden: Golden) -> Iterator[str]:
    """The kernels that are slower than recorded by more than the tolerance, or are not recorded."""
    for row in rows:
        compiler = compilers[row["source"]]
        known = compiler in golden
        # For an unknown version: the last one of the same compiler in name order.
        others = sorted(name for name in golden if name.split()[0] == compiler.split()[0])
        if not known and not others:
            yield f"{compiler}: nothing is written down of this compiler in any version"
            continue
        entries = golden[compiler if known else others[-1]]
        expected = entries.get(row["variant"], {}).get(row["dtype"], {}).get(row["kernel"])
        label = f"{row['kernel']}, {row['variant']}, {row['dtype']}, {compiler}"
        if expected is None:
            yield f"{label}: not written down; python -m tools.step_model --write"
        elif row["cycles"] > expected * (1 + (TOLERANCE if known else UNKNOWN_TOLERANCE)):
            yield f"{label}: {row['cycles']} cycles, {expected} before"
