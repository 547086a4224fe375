"""A small model behind the functions of `bark`, with settings that are reset after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import barkfast.generation
from golden.tiny import write_vocabulary


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`random:nano` in float32 on the torch engine, with a small vocabulary."""
    for name, value in {
        "BARKFAST_MODEL": "random:nano",
        "BARKFAST_TOKENIZER": str(write_vocabulary(tmp_path / "tokenizer").parent),
        "BARKFAST_DEVICE": "cpu",
        "BARKFAST_DTYPE": "float32",
        "BARKFAST_ENGINE": "torch",
    }.items():
        monkeypatch.setenv(name, value)
    yield from fresh()


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No model named: the functions look where `bark` looks."""
    for name in ("BARKFAST_MODEL", "BARKFAST_CODEC", "BARKFAST_TOKENIZER", "SUNO_USE_SMALL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BARKFAST_DEVICE", "cpu")
    monkeypatch.setenv("BARKFAST_ENGINE", "torch")
    yield from fresh()


def fresh() -> Iterator[None]:
    before = dict(vars(barkfast.generation))
    barkfast.generation.forget_default_bark()
    yield
    barkfast.generation.forget_default_bark()
    for name in vars(barkfast.generation).keys() - before.keys():
        delattr(barkfast.generation, name)
