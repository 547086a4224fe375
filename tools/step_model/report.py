"""The results for a step's kernels, as data and as tables."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from barkfast.weights.random import SIZES
from barkfast_kernels.variant import Variant
from tools.step_model.allowed import allowed_for
from tools.step_model.calibration import BOUNDARY
from tools.step_model.chain import AHEAD, AT_THE_END, H100, H200, Chain, Device, Stage
from tools.step_model.compare import Compilers
from tools.step_model.cycles import (
    MULTIPROCESSORS,
    microseconds,
    per_multiprocessor,
)
from tools.step_model.kernels import MODEL, Step, StepKernel
from tools.step_model.rules import check

# The context length at which a stage's step is modelled: late in a clip.
CONTEXT = {"semantic": 1000, "coarse": 917}
# Rows of the head that a step reads: the semantic tokens and the stop token; both slices of the coarse codes.
HEAD_ROWS = {"semantic": 10_001, "coarse": 2048}
DEVICES = (H100, H200)
HEADS = ("norm_head", "head_draw")
# us of loads from memory before a later wave of a grid's blocks can begin to compute.
_WAVE = 0.9


@dataclass(frozen=True)
class KernelRow:
    """One kernel of one step.

    Args:
        waves: how many times its blocks fill the device.
        trips: how often it stalls, after the wait, for loads issued after the wait.
        cycles: of one wave after the wait, modelled; `before` and `after` the largest tensor is needed.
        ahead: whether that tensor is loaded before the wait.
        violations: rules that it breaks, each with the place.
    """

    variant: str
    dtype: str
    kernel: str
    source: str
    blocks: int
    threads: int
    registers: int
    shared_bytes: int
    waves: float
    trips: int
    cycles: int
    before: int
    after: int
    ahead: bool
    violations: list[str]


@dataclass(frozen=True)
class StepRow:
    """A modelled step, in us."""

    variant: str
    dtype: str
    stage: str
    device: str
    loads: str
    us: float


def kernel_rows(step: Step) -> list[KernelRow]:
    """All kernels of a step."""
    return [_kernel_row(step, kernel) for kernel in step.kernels.values()]


def _kernel_row(step: Step, made: StepKernel) -> KernelRow:
    kernel, launch = made.kernel, made.launch
    timing = made.timing
    return KernelRow(
        variant=step.variant,
        dtype=step.dtype,
        kernel=made.name,
        source=made.source,
        blocks=launch.blocks,
        threads=launch.threads,
        registers=kernel.code.registers,
        shared_bytes=launch.shared_bytes,
        waves=round(_waves(made), 2),
        trips=timing.trips,
        cycles=timing.total,
        before=timing.before,
        after=timing.after,
        ahead=timing.ahead,
        violations=[str(found) for found in check(kernel, timing.trips, allowed_for(made.source, made.name))],
    )


def _waves(made: StepKernel) -> float:
    return made.launch.blocks / (MULTIPROCESSORS * per_multiprocessor(made.kernel, made.launch))


def step_rows(step: Step, variant: Variant, devices: Sequence[Device] = DEVICES) -> Iterator[StepRow]:
    """The modelled step, for every stage, device and assumption of when loads begin."""
    for stage in step.launches:
        kernels = list(stages(step, variant, stage))
        for device in devices:
            for loads in (AHEAD, AT_THE_END):
                chain = Chain(device, BOUNDARY["graphs"], loads)
                us = chain.step(kernels)
                name = loads + (", weights in L2" if variant.l2_ahead else "")
                yield StepRow(step.variant, step.dtype, stage, device.name, name, round(us, 1))


def stages(step: Step, variant: Variant, stage: str) -> Iterator[Stage]:
    """The kernels of a whole step as inputs of the chain model."""
    n_layer, _, n_embd, _ = SIZES[MODEL]
    names = step.launches[stage]
    layer = [name for name in names if not name.startswith((*HEADS, "sample"))]
    matrix = n_embd * n_embd * (1 if step.dtype == "int8" else 2) / 1e6
    sizes = {
        **{"norm_qkv": 3 * matrix, "attention_out": matrix, "norm_fc_gelu": 4 * matrix, "proj_residual": 4 * matrix},
        "decode_attention": 4 * n_embd * CONTEXT[stage] / 1e6,
        **{head: 2 * n_embd * HEAD_ROWS[stage] / 1e6 for head in HEADS},
    }
    for name in (*layer * n_layer, *names[len(layer) :]):
        made = step.kernels[name]
        timing = made.timing
        function = name.partition(" ")[0]
        # A partial last wave counts only by its share: its few blocks have more of a multiprocessor each.
        later = max(0.0, _waves(made) - 1) * (microseconds(timing.total) + _WAVE)
        yield Stage(
            name=function,
            megabytes=sizes.get(function, 0.0),
            before=microseconds(timing.before),
            after=microseconds(timing.after) + later,
            room=_room(made),
            ahead=timing.ahead,
            # Earlier kernels do not prefetch keys and values: they do not know the positions of this step.
            l2_from=variant.l2_ahead if function in sizes and function != "decode_attention" else 0,
        )


def _room(made: StepKernel) -> float:
    """Share of a multiprocessor that a kernel's blocks occupy."""
    most = per_multiprocessor(made.kernel, made.launch)
    return min(most, -(-made.launch.blocks // MULTIPROCESSORS)) / most


def kernel_table(rows: Sequence[KernelRow]) -> str:
    """A table of kernels as text."""
    titles = ("blocks", "threads", "registers", "shared B", "waves", "trips", "cycles", "before", "after", "us")
    lines = [f"{'kernel':<22}{'':<8}" + "".join(f"{title:>10}" for title in titles)]
    for row in rows:
        cells = (row.blocks, row.threads, row.registers, row.shared_bytes, row.waves, row.trips)
        times = (row.cycles, f"{row.before}{'' if row.ahead else '*'}", row.after, f"{microseconds(row.cycles):.2f}")
        lines.append(f"{row.kernel:<22}{row.source:<8}" + "".join(f"{cell:>10}" for cell in (*cells, *times)))
    if any(not row.ahead for row in rows):
        lines.append("* the largest tensor is not loaded ahead: cycles until it is asked for")
    return "\n".join(lines)


def step_table(rows: Sequence[StepRow]) -> str:
    """A table of steps as text."""
    groups: dict[tuple[str, str, str], dict[str, float]] = {}
    columns = list(dict.fromkeys(f"{row.device} {row.loads}" for row in rows))
    for row in rows:
        groups.setdefault((row.variant, row.dtype, row.stage), {})[f"{row.device} {row.loads}"] = row.us
    lines = ["modelled steps, us:", *(f"  [{i}] {column}" for i, column in enumerate(columns))]
    lines.append(f"{'':<44}" + "".join(f"{f'[{i}]':>8}" for i in range(len(columns))))
    for (variant, dtype, stage), times in groups.items():
        label = f"{variant}, {dtype}, {stage} {CONTEXT[stage]}"
        lines.append(f"{label:<44}" + "".join(f"{times[c]:>8.1f}" if c in times else " " * 8 for c in columns))
    return "\n".join(lines)


def as_data(compilers: Compilers, kernels: Sequence[KernelRow], steps: Sequence[StepRow]) -> dict[str, Any]:
    """All results as an object for JSON."""
    return {
        "compilers": compilers,
        "kernels": [asdict(row) for row in kernels],
        "steps": [asdict(row) for row in steps],
    }
