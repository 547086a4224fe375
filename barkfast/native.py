"""The optional compiled module `barkfast._native`, the reason if it is missing, and its errors."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from barkfast.errors import EngineError, InputError

# Interface version of the module that this code works with; csrc/bindings/module.cpp sets the module's own.
INTERFACE = 4
# setup.py writes its reason here when it installs without the module.
BUILD_NOTE = Path(__file__).with_name("_native_build.txt")


@cache
def _import_native() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("barkfast._native")
    except ImportError as error:
        if BUILD_NOTE.is_file():
            return None, f"not built: {BUILD_NOTE.read_text(encoding='utf-8').strip()}"
        if isinstance(error, ModuleNotFoundError) and error.name == "barkfast._native":
            return None, "not built: run `pip install` again with cmake and a C++17 compiler on PATH"
        return None, f"built, but does not load: {error}"
    if getattr(module, "interface", None) != INTERFACE:
        return None, "built from other sources than the Python code: run `pip install` again"
    features = [name for name, present in module.cpu_features().items() if present]
    return module, f"loaded; this CPU has {', '.join(features) or 'no instruction set that it looks for'}"


def load_native() -> ModuleType | None:
    """Return `barkfast._native`, or None where it was not built or does not load; `native_status` says why."""
    return _import_native()[0]


def native_status() -> tuple[bool, str]:
    """Return whether the native module is loaded, and one line for users: the CPU's features, or why it is missing."""
    module, status = _import_native()
    return module is not None, status


@contextmanager
def native_errors() -> Iterator[None]:
    """Convert the native module's errors to barkfast's."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error
    except MemoryError as error:
        raise EngineError(
            "no memory left for the cpu engine's buffers; use fewer slots, or close other programs"
        ) from error
    except RuntimeError as error:
        raise EngineError(f"the cpu engine cannot do this now: {error}") from error
