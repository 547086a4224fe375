"""Skips tests of engines that this machine does not have."""

import pytest

from barkfast.runtime.engines import describe_engines


def require(engine: str) -> None:
    """Skip the test, with the reason, if an engine is not available."""
    found = {e.name: e for e in describe_engines()}[engine]
    if not found.available:
        pytest.skip(found.reason)
