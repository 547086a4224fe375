"""The device and the versions, in a process of their own: even asking a device can hang."""

import importlib.util
from typing import Any

from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder
from benchmarks.results import SMOKE_DEVICE

MIN_TRITON = (3, 4)
# Imported by barkfast for a model with random weights, to describe the machine, or by the tests.
NEEDED = ("numpy", "tokenizers", "safetensors", "huggingface_hub", "tqdm", "psutil", "pynvml", "pytest")


def run(plan: Plan, record: Recorder) -> None:
    """One row; none, but a failure named "usable", where this interpreter cannot run the rest on a GPU."""
    lack = None if plan.threads else find_lack(plan.smoke)
    if lack is not None:
        record.measure("usable", lambda: refuse(lack))
        return
    record.measure("environment", lambda: describe(plan))


def find_lack(smoke: bool) -> str | None:
    """What is missing, or None; needs nothing installed to say so. A smoke test needs no GPU."""
    try:
        import torch
        import triton
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not smoke and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    if tuple(map(int, triton.__version__.split(".")[:2])) < MIN_TRITON:
        return f"Triton {triton.__version__} is too old, 3.4 or newer is needed"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"no {', '.join(missing)}" if missing else None


def refuse(lack: str) -> dict[str, Any]:
    raise NotRun(lack)


def describe(plan: Plan) -> dict[str, Any]:
    """The machine; a smoke test's results are not filed under its name."""
    # Only here: where torch is missing, that is to be said rather than raised.
    from barkfast.bench.machine import describe_machine

    machine = describe_machine(plan.device_name)
    if plan.smoke:
        machine["device"]["name"] = SMOKE_DEVICE[plan.engine]
    return machine
