"""Import torch so that it works in a deleted folder, in a container, and beside other processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from barkfast.cores import cpu_quota, physical_cores

# How many times an idle thread of torch's (libgomp's) polls for work before it sleeps, about 100 us. The default is 30
# times as many: if another process needs the cores too, a thread then wastes its share of CPU time on polling.
SPINS = 10_000
# Variable -> the user's variables that take precedence over our value.
_SETTINGS = {"GOMP_SPINCOUNT": ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"), "OMP_NUM_THREADS": ("OMP_NUM_THREADS",)}


def _load_torch() -> None:
    if "torch" in sys.modules:
        return
    with _settings(), _existing_folder():
        import torch  # noqa: F401


@contextmanager
def _settings() -> Iterator[None]:
    """Set the variables only within the block: libgomp reads them when it is loaded, and nothing else should."""
    values = {"GOMP_SPINCOUNT": SPINS}
    if cpu_quota() is not None:
        # By default libgomp starts a thread for every core of the machine, even if a container grants less.
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
    """If the current folder was deleted, use another within the block: otherwise MKL would end the process."""
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
