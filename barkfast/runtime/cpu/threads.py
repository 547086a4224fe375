"""The thread pool that all native networks of a process share, and its size."""

import logging
import math
import os
from typing import Any

import torch

from barkfast.cores import cpu_quota, logical_cpus, physical_cores
from barkfast.errors import InputError
from barkfast.runtime.cpu.fork_lock import ForkLock
from barkfast.runtime.cpu.packing import require_native

logger = logging.getLogger(__name__)

_lock = ForkLock()
_pool: Any = None


def shared_pool() -> Any:
    """The process's `barkfast._native.Pool`, created at the first call; in a forked child it starts new threads.

    Raises: the errors of `count_threads`; EngineError without the native module.
    """
    global _pool
    with _lock:
        if _pool is None:
            _pool = require_native().Pool(count_threads())
            _warn_of_quota(_pool.size)
        return _pool


def count_threads() -> int:
    """Number of threads of the pool, or of a pool made now: $BARKFAST_THREADS, else one per physical core.

    The cores are those that affinity and the cgroups' quota allow. Fewer if torch uses fewer threads, so that
    OMP_NUM_THREADS and torch.set_num_threads apply here too.

    Raises: InputError for a $BARKFAST_THREADS that is no number from 1 to the logical CPUs of this process.
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
    """Warn of more threads than the container's quota in cores: the system then stops all until the next period."""
    quota = cpu_quota()
    if quota is not None and n_threads > math.ceil(quota):
        logger.warning(
            "the cpu engine has %d threads, and this process's cgroup grants it the time of %.3g cores: it is stopped "
            "when that is used up; set BARKFAST_THREADS to %d, or leave it unset",
            *(n_threads, quota, physical_cores()),
        )
