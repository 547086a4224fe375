"""The model of a step compared with measurements: the twelve rows of an H100, with the kernels that ran there.

The work of those kernels, from their machine code, is recorded here because their sources have changed since.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.step_model.chain import AHEAD, AT_THE_END, H100, Chain, Stage

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "benchmarks" / "results" / "nvidia-h100-80gb-hbm3-2026-11-24.json"
N_LAYER, N_EMBD = 24, 1024
# us from the end of a kernel to the end of the next one's wait, measured in the same run.
BOUNDARY = {"graphs": 0.81, "graphs without PDL": 1.16}
# us before a kernel's bytes are needed, and after that.
WORK = {
    "bfloat16": {"qkv": (1.15, 0.63), "att": (0.6, 1.9), "out": (1.2, 0.44), "fc": (1.4, 1.0), "proj": (0.55, 0.76)},
    "int8": {"qkv": (1.15, 0.73), "att": (0.6, 1.9), "out": (1.2, 0.44), "fc": (1.3, 0.94), "proj": (0.55, 1.27)},
}
# us of norm_head before and after its bytes are needed, then of the draw. MB of the head: coarse read both slices.
HEAD_BEFORE, HEAD_AFTER = 0.8, 2.0
DRAW = {"semantic": 11.0, "coarse": 3.0}
HEAD_MEGABYTES = {"semantic": 20.5, "coarse": 4.2}
# Three of a layer's kernels fit on a multiprocessor at once; none fits beside the head's.
ROOM = 1 / 3


@dataclass(frozen=True)
class Row:
    """A measured step of Bark-large, and the modelled times, in us."""

    name: str
    measured: float
    at_the_end: float
    ahead: float

    @property
    def error(self) -> float:
        """Relative error of the model in which loads begin when the predecessor ends."""
        return self.at_the_end / self.measured - 1


def stages(dtype: str, stage: str, context: float) -> list[Stage]:
    """The kernels of a step at the time of the measurement."""
    matrix = N_EMBD * N_EMBD * (1 if dtype == "int8" else 2) / 1e6
    sizes = {"qkv": 3 * matrix, "att": 4 * N_EMBD * context / 1e6, "out": matrix, "fc": 4 * matrix, "proj": 4 * matrix}
    work = WORK[dtype]
    layer = [Stage(name, size, *work[name], ROOM) for name, size in sizes.items()]
    head = Stage("head", HEAD_MEGABYTES[stage], HEAD_BEFORE, HEAD_AFTER + DRAW[stage], 1.0)
    return layer * N_LAYER + [head]


def rows(path: Path = MEASURED) -> Iterator[Row]:
    """Each measured row in a dtype of WORK, with the modelled times."""
    measured = json.loads(path.read_text(encoding="utf-8"))["sections"]["decode"]["rows"]
    for row in measured:
        if row["size"] != "large" or row["dtype"] not in WORK or row["way"] not in BOUNDARY or row["batch"] != 1:
            continue
        step = stages(row["dtype"], row["stage"], row["context"])
        modelled = {loads: Chain(H100, BOUNDARY[row["way"]], loads).step(step) for loads in (AT_THE_END, AHEAD)}
        yield Row(row["row"], row["us_median"], modelled[AT_THE_END], modelled[AHEAD])


def table() -> str:
    """The rows as a text table."""
    lines = [f"{'measured on an H100 (us)':44s} {'':>8s} {AT_THE_END:>40s} {AHEAD:>14s}"]
    for row in rows():
        lines.append(f"{row.name:44s} {row.measured:8.1f} {row.at_the_end:32.1f} {row.error:+6.1%} {row.ahead:14.1f}")
    return "\n".join(lines)
