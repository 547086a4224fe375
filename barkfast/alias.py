"""A second name for a package: both names share the module objects, so each module is loaded once."""

import importlib
import sys
from collections.abc import Iterable
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import CodeType, ModuleType

from barkfast.errors import InputError


class _Loader(InspectLoader):
    """Loads `alias.x` by importing `package.x`: the same module object under a second name."""

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
    """Finds the modules below `alias`."""

    def __init__(self, alias: str, package: str) -> None:
        self.alias, self.package = alias, package

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        head, _, rest = fullname.partition(".")
        real = find_spec(f"{self.package}.{rest}") if head == self.alias and rest else None
        if real is None:
            return None
        package = real.submodule_search_locations is not None
        return spec_from_loader(fullname, _Loader(real.name), origin=real.origin, is_package=package)


def install_alias(alias: str, package: ModuleType, modules: Iterable[str]) -> None:
    """Make imports of `alias` and of its modules return those of `package`; calling it again changes nothing.

    Args:
        modules: those of the package that are imported now.

    Raises:
        InputError: a package named `alias` has been imported, and other code may hold references to its functions.
    """
    present = sys.modules.get(alias)
    if present is not None and present is not package:
        raise InputError(
            f"{alias} is imported already, from {getattr(present, '__file__', None)!r}; call "
            f"{package.__name__}.install_as_{alias}() before anything imports {alias}"
        )
    if not any(isinstance(finder, _Finder) and finder.alias == alias for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(alias, package.__name__))
    sys.modules[alias] = package
    for name in modules:
        importlib.import_module(f"{alias}.{name}")
