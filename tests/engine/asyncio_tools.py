"""Helpers of the tests of the asyncio engine."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from barkfast.engine.async_engine import Engine

# More chunks than any test waits for.
FOREVER = 10**9


@asynccontextmanager
async def running(bark: Any, **options: Any) -> AsyncIterator[Engine]:
    """An engine; asserts that it leaves no task and no thread behind."""
    before = asyncio.all_tasks()
    async with Engine(bark, **options) as engine:
        yield engine
    assert asyncio.all_tasks() == before
    assert not [t for t in threading.enumerate() if t.name == "barkfast-engine"]


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds, instead of for a fixed time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.001)


async def read_all(stream: Any) -> np.ndarray:
    return np.concatenate([chunk async for chunk in stream])
