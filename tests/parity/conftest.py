"""Fixtures of the parity tests; without the reference installed they are not collected, and the summary says so."""

from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import REFERENCE
from golden.tiny import Files, load_barkfast, unload_barkfast, write_codec

from .reference import Pair, codec_shapes, load_reference, tally, write_files

collect_ignore_glob = [] if all(find_spec(name) for name in REFERENCE) else ["test_*.py"]


@pytest.fixture(scope="package")
def both_files(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Files]:
    """Checkpoints without and with bias, sharing one codec."""
    folder: Path = tmp_path_factory.mktemp("checkpoints")
    codec = write_codec(folder, codec_shapes())
    return {bias: write_files(folder / f"bias_{bias}", bias, codec) for bias in (False, True)}


@pytest.fixture(scope="module", params=[False, True], ids=["no_bias", "bias"])
def files(request: pytest.FixtureRequest, both_files: dict[bool, Files]) -> Files:
    """One set of checkpoints; tests run with each."""
    return both_files[request.param]


@pytest.fixture(scope="module")
def pair(files: Files) -> Iterator[Pair]:
    """Both packages, loaded from the same files."""
    with pytest.MonkeyPatch.context() as patch:
        both = Pair(load_reference(files), load_barkfast(files, patch), files)
        yield both
        both.reference.clean_models()
        unload_barkfast()


@pytest.fixture(scope="session", autouse=True)
def report(figures: Counter[str]) -> Iterator[None]:
    """Add to the summary how many token sequences were compared, and how many were identical."""
    yield
    figures.update(sequences=tally.compared, identical=tally.identical, logits=tally.logits, same_bits=tally.same_bits)
