"""Golden tokens: what the reference generated on tiny models; the reference itself need not be installed.

`golden/make.py` makes them; `golden/tiny.py` rebuilds the models and `golden/cases.py` the calls.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from golden.cases import Case, all_cases, digest_generator, digest_stream
from golden.tiny import load_barkfast, unload_barkfast, write_files

GOLDEN = Path(__file__).parent / "golden"
CALLS = json.loads((GOLDEN / "calls.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results() -> dict[str, np.ndarray]:
    """Every golden array by the name of its case."""
    with np.load(GOLDEN / "tokens.npz", allow_pickle=False) as file:
        return {name.replace("|", "/"): file[name] for name in file.files}


@pytest.fixture(scope="module", params=["no_bias", "bias"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ModuleType]]:
    """`barkfast.generation` on one of the two tiny models, and the model's name."""
    files = write_files(tmp_path_factory.mktemp("tiny"), request.param == "bias", CALLS["codec_shapes"])
    with pytest.MonkeyPatch.context() as patch:
        yield request.param, load_barkfast(files, patch)
        unload_barkfast()


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_results_are_the_reference_s(model: tuple[str, ModuleType], results: dict[str, np.ndarray], case: Case) -> None:
    name, generation = model
    same_stream = digest_stream() == CALLS["stream"]
    if case.is_drawn and not same_stream:
        pytest.skip("this build of torch draws other random numbers than the one that made the golden files")
    golden, call = results[f"{name}/{case.name}"], CALLS["calls"][f"{name}/{case.name}"]
    torch.manual_seed(call["seed"])
    result = getattr(generation, case.function)(case.make_input(call["seed"]), **case.options)
    assert (result.dtype, result.shape) == (golden.dtype, golden.shape)
    if case.function == "codec_decode":
        assert golden.std() > 0.05, "a waveform this faint would pass by its smallness"
        np.testing.assert_allclose(result, golden, rtol=0, atol=1e-5)
    else:
        np.testing.assert_array_equal(result, golden)
    if same_stream:
        assert digest_generator() == call["generator"], "other random numbers were consumed than by the reference"


def test_every_golden_result_is_compared(results: dict[str, np.ndarray]) -> None:
    expected = {f"{name}/{case.name}" for name in ("no_bias", "bias") for case in all_cases()}
    assert set(results) == set(CALLS["calls"]) == expected
