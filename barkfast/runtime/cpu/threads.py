"""The threads that all native networks of a process share, and how many they are."""

import os
from typing import Any

import torch

from barkfast.errors import InputError
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.cpu.turns import Turn

_lock = Turn()
_pool: Any = None


def shared_pool() -> Any:
    """The process's `barkfast._native.Pool`, made when it is first asked for and kept from then on.

    In a child process after a fork it starts threads of its own when it is next used.
    Errors: those of `count_threads`; EngineError without the native module.
    """
    global _pool
    with _lock:
        if _pool is None:
            _pool = require_native().Pool(count_threads())
        return _pool


def count_threads() -> int:
    """How many threads the pool has, or would have if it were made now.

    $BARKFAST_THREADS, or else one for each physical core that this process may use; fewer where torch uses fewer, so
    that OMP_NUM_THREADS and torch.set_num_threads hold here too.
    Errors: InputError for what is no number of threads that this machine has.
    """
    if _pool is not None:
        return _pool.size
    given = os.environ.get("BARKFAST_THREADS")
    if not given:
        return max(1, min(require_native().physical_cores(), torch.get_num_threads()))
    limit = logical_cpus()
    if not (given.isascii() and given.isdigit()) or not 1 <= int(given) <= limit:
        raise InputError(
            f"BARKFAST_THREADS is {given!r}; expected a whole number from 1 to {limit}, the logical CPUs that this "
            "process may use, or nothing for one thread per physical core"
        )
    return int(given)


def logical_cpus() -> int:
    """Hardware threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
