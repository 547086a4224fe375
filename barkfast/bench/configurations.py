"""Which engines and dtypes there are to be compared on this machine, and why others are not."""

from collections.abc import Sequence
from dataclasses import dataclass

from barkfast.config import DTYPE_ALIASES, DTYPES
from barkfast.errors import BarkfastError, InputError
from barkfast.runtime import select
from barkfast.runtime.engines import describe_engines


@dataclass(frozen=True)
class Configuration:
    """An engine with a dtype on a device.

    Args:
        reason: why it cannot be compared; empty if it can.
    """

    engine: str
    dtype: str
    device: str
    reason: str = ""

    @property
    def place(self) -> select.Placement:
        """Where and how its networks run."""
        return select.Placement(self.engine, self.device, self.device, self.dtype)


def judge_of(device: str) -> select.Placement:
    """The torch engine in float32, which the others are compared with."""
    return Configuration("torch", "float32", device).place


def find_configurations(
    device: str, engines: Sequence[str] | None = None, dtypes: Sequence[str] | None = None
) -> list[Configuration]:
    """All but the judge itself, those that are not there with the reason.

    Args:
        device: a resolved name. The cpu engine stays on the CPU whatever it is.
        engines, dtypes: None for all.
    Errors: InputError for unknown names, or if nothing is left.
    """
    known = {engine.name: engine for engine in describe_engines(device)}
    wanted = list(known) if engines is None else list(engines)
    for name in wanted:
        if name not in known:
            raise InputError(f"engine is {name!r}; expected {', '.join(known)}")
    names = None if dtypes is None else [DTYPE_ALIASES.get(dtype, dtype) for dtype in dtypes]
    for name in names or ():
        if name not in DTYPES:
            raise InputError(f"dtype is {name!r}; expected {', '.join(DTYPES)}")
    found: list[Configuration] = []
    for engine in wanted:
        where = "cpu" if engine == "cpu" else device
        if not known[engine].available:
            found.append(Configuration(engine, "", where, known[engine].reason))
            continue
        for dtype in select.ENGINE_DTYPES[engine]:
            if names is not None and dtype not in names or (engine, dtype) == ("torch", "float32"):
                continue
            found.append(
                Configuration(engine, dtype, where, _find_obstacle(engine, dtype, where, asked=names is not None))
            )
    if not found:
        raise InputError(
            f"nothing to compare: {', '.join(wanted)} with {', '.join(names or ())}; torch float32 is the judge, and "
            "`barkfast info` lists the engines"
        )
    return found


def _find_obstacle(engine: str, dtype: str, device: str, *, asked: bool) -> str:
    """Why an engine that is present cannot run a dtype on a device; empty if it can."""
    if (engine, device, dtype) == ("torch", "cpu", "float16") and not asked:
        return "CPUs convert float16 at every turn, which takes long; ask for it by its name"
    if (engine, dtype) == ("cuda", "bfloat16") and not device.startswith("cuda"):
        return "Triton's interpreter computes bfloat16 wrong; it takes a GPU"
    try:
        select.resolve_engine(engine, device)
        select.resolve_dtype(dtype, device, engine)
    except BarkfastError as error:
        return str(error)
    return ""
