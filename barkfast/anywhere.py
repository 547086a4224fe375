"""torch, loaded so that it runs anywhere: in a folder that was deleted, and beside other processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# How often a thread of torch's (libgomp's) looks for work before it sleeps, some 100 us. By default it is 30 times as
# many: beside another process that wants the cores a thread then spends its share of them on looking.
SPINS = 10_000
# The user's own settings of the same.
_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def _load_torch() -> None:
    if "torch" in sys.modules:
        return
    with _short_spins(), _existing_folder():
        import torch  # noqa: F401


@contextmanager
def _short_spins() -> Iterator[None]:
    """The setting, for the length of the block: libgomp reads it when it is loaded, and nobody else shall."""
    if any(name in os.environ for name in _SETTINGS):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


@contextmanager
def _existing_folder() -> Iterator[None]:
    """Another current folder, for the length of the block, if it was deleted: MKL would end the process."""
    try:
        os.getcwd()
    except OSError:
        here = os.open(".", os.O_RDONLY)
        os.chdir(os.sep)
        try:
            yield
        finally:
            os.fchdir(here)
            os.close(here)
    else:
        yield


_load_torch()
