"""The demo voice on every engine and dtype: teacher-forced greedy tokens and free-running phones against float32's.

Random weights show that an engine computes the same network; a trained network shows whether rounding is audible.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from barkfast import Bark
from barkfast.bench.compare import count_equal
from barkfast.bench.teacher_forced import build_network, greedy_coarse, greedy_semantic, teacher_force
from barkfast.config import Sampling
from barkfast.native import native_status
from barkfast.runtime.select import Placement
from barkfast.text import load_tokenizer
from barkfast.weights import open_model

from .conftest import Spoken
from .model import phone_error_rate, read_back, read_sentences

needs_native = pytest.mark.skipif(not native_status()[0], reason="the native module was not built")
# engine, dtype, minimum share of teacher-forced greedy tokens equal to float32's, maximum rise of phone error rate.
PLACES = [
    pytest.param("torch", "bfloat16", 0.97, 0.02, id="torch-bfloat16"),
    pytest.param("cpu", "float32", 0.995, 0.005, id="cpu-float32", marks=needs_native),
    pytest.param("cpu", "bfloat16", 0.98, 0.02, id="cpu-bfloat16", marks=needs_native),
    pytest.param("cpu", "int8", 0.98, 0.02, id="cpu-int8", marks=needs_native),
    pytest.param("cpu", "int4", 0.90, 0.03, id="cpu-int4", marks=needs_native),
    pytest.param("cuda", "float32", 0.995, 0.005, id="cuda-float32", marks=pytest.mark.gpu),
    pytest.param("cuda", "bfloat16", 0.97, 0.02, id="cuda-bfloat16", marks=pytest.mark.gpu),
    pytest.param("cuda", "float16", 0.98, 0.02, id="cuda-float16", marks=pytest.mark.gpu),
    pytest.param("cuda", "int8", 0.97, 0.02, id="cuda-int8", marks=pytest.mark.gpu),
]
N_LED = 6


def device_of(engine: str) -> str:
    return "cuda:0" if engine == "cuda" else "cpu"


def place_of(engine: str, dtype: str) -> Placement:
    return Placement(engine, device_of(engine), device_of(engine), dtype, 1)


@pytest.fixture(scope="module")
def judge(spoken: list[Spoken]) -> dict[str, list]:
    """Greedy jobs of two stages, with the tokens that the torch engine chooses in float32."""
    checkpoint, place = open_model("demo"), place_of("torch", "float32")
    tokenizer, layout = load_tokenizer(checkpoint), checkpoint.layout
    texts = [np.array(tokenizer.encode(one.text), np.int32) for one in spoken[:N_LED]]
    jobs = {
        "semantic": [greedy_semantic(layout, ids, None, 80) for ids in texts],
        "coarse": [greedy_coarse(layout, one.generation.semantic, None, 60) for one in spoken[:N_LED]],
    }
    networks = {stage: build_network(checkpoint, stage, place) for stage in jobs}
    return {stage: [(job, teacher_force(networks[stage], job).tokens) for job in jobs[stage]] for stage in jobs}


@pytest.fixture(scope="module")
def rate_of(request: pytest.FixtureRequest) -> Callable[[str, str], float]:
    """The phone error rate of an engine and dtype at temperature 0.7: 200 sentences with `--full`, else 48.

    Compare only rates of one engine: each engine draws other random numbers.
    """
    some = read_sentences()[: 200 if request.config.getoption("--full") else 48]

    @cache
    def rate(engine: str, dtype: str) -> float:
        bark = Bark("demo", device=device_of(engine), engine=engine, dtype=dtype)
        said = [bark.generate_semantic(one["text"], sampling=Sampling(0.7), seed=i) for i, one in enumerate(some)]
        return phone_error_rate([read_back(units) for units in said], [one["phones"].split() for one in some])

    return rate


@pytest.mark.sweep(3)
@pytest.mark.parametrize(("engine", "dtype", "share", "more"), PLACES)
def test_tokens_and_phones_hold_against_float32(
    engine: str,
    dtype: str,
    share: float,
    more: float,
    judge: dict[str, list],
    rate_of: Callable[[str, str], float],
    texts: list[str],
) -> None:
    checkpoint, line = open_model("demo"), []
    for stage, walked in judge.items():
        network = build_network(checkpoint, stage, place_of(engine, dtype))
        pairs = [(path, teacher_force(network, job, path).tokens) for job, path in walked]
        equal, total = sum(count_equal(*pair) for pair in pairs), sum(len(path) for path, _ in pairs)
        line.append(f"{stage} {equal / total:.3f} of {total} greedy tokens")
        assert equal >= share * total, line
    rate, plain = rate_of(engine, dtype), rate_of(engine, "float32")
    texts.append(f"demo voice, {engine} {dtype}: {', '.join(line)}; phone errors {rate:.3f}, float32's {plain:.3f}")
    assert rate <= plain + more


def test_the_cuda_engine_chooses_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    greedy = {"sampling": Sampling(0), "max_duration_s": 0.06}
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    ours, theirs = (
        Bark("demo", device=device, engine=engine, dtype="float32").generate_semantic("Yes.", **greedy)
        for engine in ("cuda", "torch")
    )
    np.testing.assert_array_equal(ours, theirs)
