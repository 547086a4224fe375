"""Kernel settings of NVIDIA's driver that Triton does not expose; torch's CUDA builds include the bindings."""

import logging
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)


@cache
def prefer_shared(function: Any, carveout: int) -> None:
    """Request `carveout` percent of a multiprocessor's memory as shared memory while this kernel runs.

    Args:
        function: the driver's handle of the kernel.

    Raises: RuntimeError if the driver refuses. Without the bindings it only logs one warning.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        _warn_once(f"kernels leave their share of shared memory to the driver, perhaps slower: {error}")
        return
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
    (error,) = driver.cuFuncSetAttribute(function, attribute, carveout)
    if error:
        raise RuntimeError(f"the driver does not set a kernel's share of shared memory: {error!r}")


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
