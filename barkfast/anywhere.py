"""torch, loaded so that it runs anywhere: in a folder that was deleted, in a container, and beside other processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from barkfast.cores import cpu_quota, physical_cores

# How often a thread of torch's (libgomp's) looks for work before it sleeps, some 100 us. By default it is 30 times as
# many: beside another process that wants the cores a thread then spends its share of them on looking.
SPINS = 10_000
# What is set, and the user's own settings of the same.
_SETTINGS = {"GOMP_SPINCOUNT": ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"), "OMP_NUM_THREADS": ("OMP_NUM_THREADS",)}


def _load_torch() -> None:
    if "torch" in sys.modules:
        return
    with _settings(), _existing_folder():
        import torch  # noqa: F401


@contextmanager
def _settings() -> Iterator[None]:
    """For the length of the block: libgomp reads them when it is loaded, and nobody else shall."""
    values = {"GOMP_SPINCOUNT": SPINS}
    if cpu_quota() is not None:
        # By itself it takes a thread for every core of the machine, however little of them a container grants.
        values["OMP_NUM_THREADS"] = physical_cores()
    ours = [name for name in values if not any(given in os.environ for given in _SETTINGS[name])]
    os.environ.update({name: str(values[name]) for name in ours})
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


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
