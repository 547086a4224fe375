"""What a test needs of this machine."""

import pytest

from barkfast.runtime.engines import describe_engines


def require(engine: str) -> None:
    """Skip, with the reason, where there is no such engine."""
    found = {e.name: e for e in describe_engines()}[engine]
    if not found.available:
        pytest.skip(found.reason)
