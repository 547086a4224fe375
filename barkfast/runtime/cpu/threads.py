"""The threads that all native networks of a process share, and how many they are."""

import logging
import math
import os
from typing import Any

import torch

from barkfast.cores import cpu_quota, logical_cpus, physical_cores
from barkfast.errors import InputError
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.cpu.turns import Turn

logger = logging.getLogger(__name__)

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
            _warn_of_quota(_pool.size)
        return _pool


def count_threads() -> int:
    """How many threads the pool has, or would have if it were made now.

    $BARKFAST_THREADS, or else one for each physical core that this process may use, and no more than its cgroups grant
    it the time of; fewer where torch uses fewer, so that OMP_NUM_THREADS and torch.set_num_threads hold here too.
    Errors: InputError for what is no number of threads that this machine has.
    """
    if _pool is not None:
        return _pool.size
    given = os.environ.get("BARKFAST_THREADS")
    if not given:
        return max(1, min(physical_cores(), torch.get_num_threads()))
    limit = logical_cpus()
    if not (given.isascii() and given.isdigit()) or not 1 <= int(given) <= limit:
        raise InputError(
            f"BARKFAST_THREADS is {given!r}; expected a whole number from 1 to {limit}, the logical CPUs that this "
            "process may use, or nothing for one thread per physical core"
        )
    return int(given)


def _warn_of_quota(n_threads: int) -> None:
    """More threads than a container grants cores are all stopped together, until its next period."""
    quota = cpu_quota()
    if quota is not None and n_threads > math.ceil(quota):
        logger.warning(
            "the cpu engine has %d threads, and this process's cgroup grants it the time of %.3g cores: it is stopped "
            "when that is used up; set BARKFAST_THREADS to %d, or leave it unset",
            *(n_threads, quota, physical_cores()),
        )
