"""Fixtures of the parity tests; without the reference installed they are left out, and the summary says so."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from golden.tiny import Files, load_barkfast, unload_barkfast, write_codec

from .reference import Pair, codec_shapes, load_reference, tally, write_files

NEEDED = ("bark", "encodec", "transformers", "scipy", "einops", "funcy")
missing = [name for name in NEEDED if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if missing else []


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: how many token sequences were compared, and how many were identical."""
    if missing:
        terminalreporter.write_line(f"parity: not run, {', '.join(missing)} not installed (the extra `reference`)")
    elif tally.compared:
        terminalreporter.write_line(
            f"parity: {tally.compared} token sequences compared, {tally.identical} identical",
            green=tally.compared == tally.identical,
            red=tally.compared != tally.identical,
        )
    if tally.logits:
        terminalreporter.write_line(
            f"parity: {tally.logits} sets of logits close to the reference's, {tally.same_bits} of them bit for bit"
        )
