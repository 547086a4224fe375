"""Fixtures of the demo voice's tests: held-out sentences and the clips generated from them."""

import dataclasses
from typing import Any

import pytest

from barkfast import Bark
from barkfast.engine.results import Generation

from .model import read_sentences


@dataclasses.dataclass(frozen=True)
class Spoken:
    """A held-out sentence and the clip generated from it."""

    text: str
    phones: list[str]
    generation: Generation


@pytest.fixture(scope="session")
def sentences(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """A few held-out sentences; all 200 with `--full`."""
    return read_sentences()[: 200 if request.config.getoption("--full") else 16]


@pytest.fixture(scope="session")
def bark() -> Bark:
    """The demo voice as users get it on a CPU."""
    return Bark("demo", device="cpu")


@pytest.fixture(scope="session")
def spoken(bark: Bark, sentences: list[dict[str, Any]]) -> list[Spoken]:
    """A clip of each sentence at the default temperatures."""
    return [
        Spoken(item["text"], item["phones"].split(), bark.generate(item["text"], seed=number))
        for number, item in enumerate(sentences)
    ]
