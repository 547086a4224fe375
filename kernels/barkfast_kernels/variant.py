"""Tuning options of the decode step of one to eight sequences; benchmarks choose among them.

A variant changes when data is loaded and where results are computed, not the results: all Triton variants give the
same bits, and the CUDA variants differ from them only in the order of sums.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

KERNELS = ("triton", "cuda")


@dataclass(frozen=True)
class Variant:
    """Options of a decode step of one to eight sequences; each but `kernels` can be changed independently.

    Args:
        kernels: "triton", or "cuda" for those of barkfast_kernels.hopper (compute capability 9.0).
        trigger_first: let the next kernel start at the beginning of a kernel rather than after its weight loads.
        one_trip: read what other kernels wrote with loads that depend on no other load and bypass the L1 cache;
            whether a row is running then masks the stores instead of a branch.
        kv_ahead: before waiting for the previous kernel, load the keys and values of positions that are known to be
            written. The CUDA kernels always do.
        l2_ahead: prefetch into the L2 cache the weights of the kernel this many launches later; 0 is off.
        carveout: percent of an SM's memory that is shared memory rather than L1, equal for all kernels of the step, so
            that a kernel need not wait for an SM to change the split; None leaves it to the driver.
        branchless: CUDA attention handles all positions of its split at once, without a branch per pass.
        splits: parts of a context in CUDA attention, one block each. With fewer, every block of the next kernel
            combines less.
        blocks: number of CUDA blocks that share the rows of a matrix: one or two per multiprocessor of an H100 (132),
            and a divisor of Bark's sizes.
        fused_head: final norm, logits and sampling in one CUDA kernel, where no top-k or top-p filter is used.
    """

    kernels: str = "triton"
    trigger_first: bool = True
    one_trip: bool = True
    kv_ahead: bool = True
    l2_ahead: int = 1
    carveout: int | None = 100
    branchless: bool = True
    splits: int = 4
    blocks: int = 128
    fused_head: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value, allowed = getattr(self, field.name), _ALLOWED[field.name]
            # True == 1: reject a flag in place of a number and a number in place of a flag.
            if not any(value == choice and type(value) is type(choice) for choice in allowed):
                raise ValueError(f"{field.name} of a kernel variant is {value!r}, not one of {allowed}")

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> "Variant":
        """Inverse of `to_dict`.

        Raises: ValueError for an unknown field or value, naming it.
        """
        unknown = sorted(entries.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"a kernel variant has no {unknown[0]!r}")
        return cls(**entries)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return asdict(self)


_FLAG = (False, True)
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "kernels": KERNELS,
    "trigger_first": _FLAG,
    "one_trip": _FLAG,
    "kv_ahead": _FLAG,
    "l2_ahead": (0, 1, 2),
    "carveout": (None, *range(101)),
    "branchless": _FLAG,
    "splits": (4, 8),
    "blocks": (128, 256),
    "fused_head": _FLAG,
}

# Used where nothing was measured.
DEFAULT = Variant()
# The kernels measured on an H100 on 2026-11-24, and the CUDA kernels as they were first written.
_T0 = dict(trigger_first=False, one_trip=False, kv_ahead=False, l2_ahead=0, carveout=None)
_C0 = dict(kernels="cuda", **_T0, branchless=False, fused_head=False)
_C4 = _C0 | dict(carveout=100, trigger_first=True, one_trip=True, branchless=True)
# Variants by the names that benchmarks report.
VARIANTS: dict[str, Variant] = {
    "T0 as on the H100": Variant(**_T0),
    "T1 trigger first": Variant(**_T0 | dict(trigger_first=True)),
    "T2 carve-out": Variant(**_T0 | dict(carveout=100)),
    "T3 one trip": Variant(**_T0 | dict(one_trip=True)),
    "T4 weights to L2": Variant(**_T0 | dict(l2_ahead=1)),
    "T5 keys and values ahead": Variant(**_T0 | dict(kv_ahead=True)),
    "T6 all": DEFAULT,
    "C0 as first written": Variant(**_C0),
    "C1 carve-out": Variant(**_C0 | dict(carveout=100)),
    "C2 C1, trigger first": Variant(**_C0 | dict(carveout=100, trigger_first=True)),
    "C3 C2, one trip": Variant(**_C0 | dict(carveout=100, trigger_first=True, one_trip=True)),
    "C4 C3, branchless": Variant(**_C4),
    "C5 C4, 8 splits": Variant(**_C4 | dict(splits=8)),
    "C6 C4, 256 blocks": Variant(**_C4 | dict(blocks=256)),
    "C7 C4, weights to L2": Variant(**_C4 | dict(l2_ahead=2)),
    "C8 C4, fused head": Variant(**_C4 | dict(fused_head=True)),
    "C9 C8, weights to L2": Variant(**_C4 | dict(fused_head=True, l2_ahead=2)),
}
