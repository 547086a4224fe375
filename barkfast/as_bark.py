"""Run programs written for `bark` unchanged: `python -m barkfast.as_bark script.py ...`, or `-m module ...`.

`import bark` then returns barkfast. Both names share the module objects: `bark.generation` is `barkfast.generation`.
"""

import importlib
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

import barkfast
from barkfast.errors import InputError

__all__ = ["install_as_bark", "main"]

USAGE = "usage: python -m barkfast.as_bark [-m MODULE | SCRIPT] [ARGUMENTS...]"


class _Loader(InspectLoader):
    """Loads `bark.x` by importing `barkfast.x`: the same module object under a second name."""

    def __init__(self, real: str) -> None:
        self.real = real

    def exec_module(self, module: ModuleType) -> None:
        # The import system then returns the module that it finds in sys.modules.
        sys.modules[module.__name__] = importlib.import_module(self.real)

    def get_code(self, fullname: str) -> CodeType | None:
        """For runpy: `python -m bark`."""
        spec = find_spec(self.real)
        loader = spec.loader if spec else None
        return loader.get_code(self.real) if isinstance(loader, InspectLoader) else None

    def get_source(self, fullname: str) -> str | None:
        spec = find_spec(self.real)
        loader = spec.loader if spec else None
        return loader.get_source(self.real) if isinstance(loader, InspectLoader) else None


class _Finder(MetaPathFinder):
    """Finds the modules below `bark`."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        head, _, rest = fullname.partition(".")
        real = find_spec(f"{barkfast.__name__}.{rest}") if head == "bark" and rest else None
        if real is None:
            return None
        package = real.submodule_search_locations is not None
        return spec_from_loader(fullname, _Loader(real.name), origin=real.origin, is_package=package)


_FINDER = _Finder()


def install_as_bark() -> None:
    """Make imports of `bark` and of its modules return barkfast's; calling it again changes nothing.

    Raises:
        InputError: `bark` itself has been imported already, and other code may hold references to its functions.
    """
    present = sys.modules.get("bark")
    if present is not None and present is not barkfast:
        raise InputError(
            f"bark is imported already, from {getattr(present, '__file__', None)!r}; call "
            "barkfast.install_as_bark() before anything imports bark"
        )
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    sys.modules["bark"] = barkfast
    for name in ("api", "generation", "model", "model_fine"):
        importlib.import_module(f"bark.{name}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a script or a module, as `python` does, with barkfast in place of `bark`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_module = arguments[:1] == ["-m"]
    rest = arguments[1:] if as_module else arguments
    if not rest or (not as_module and rest[0].startswith("-")):
        raise SystemExit(USAGE)
    install_as_bark()
    sys.argv = rest
    if as_module:
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    script = Path(rest[0])
    if not script.exists():
        raise SystemExit(f"{script} does not exist; {USAGE}")
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    # Import by name: `__main__` is a second copy of this module, with a second finder.
    from barkfast.as_bark import main as run

    run()
