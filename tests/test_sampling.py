"""Sampling: filters keep what they should, and draws follow the probabilities."""

import numpy as np
import pytest
import torch

from barkfast.config import Sampling
from barkfast.errors import InputError
from barkfast.runtime.sampling import Randomness, draw, filter_top_k, filter_top_p, probabilities

N_DRAWS = 100_000


def logits_for(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 1.5


@pytest.mark.parametrize(
    "sampling",
    [Sampling(1.0), Sampling(0.7), Sampling(0.7, top_k=5), Sampling(0.7, top_p=0.8), Sampling(1.3, top_k=9, top_p=0.9)],
    ids=str,
)
def test_draws_follow_the_probabilities(sampling: Sampling) -> None:
    probs = probabilities(logits_for(24), sampling)
    generator = torch.Generator().manual_seed(1)
    drawn = draw(probs.expand(N_DRAWS, -1), sampling, generator)
    counts = torch.bincount(drawn, minlength=24).double()
    possible = probs > 0
    assert counts[~possible].sum() == 0
    expected = probs.double()[possible] * N_DRAWS
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    # 99.9 % quantile of chi-square with 23 degrees of freedom; with fewer possible ids it is exceeded even less often.
    assert chi_square < 49.7


def test_top_p_keeps_the_smallest_set_that_passes_p_and_always_the_first() -> None:
    logits = torch.tensor([0.1, 0.6, 0.2, 0.1]).log()
    kept = {p: torch.isfinite(filter_top_p(logits, p)).tolist() for p in (0.0, 0.5, 0.7, 0.85, 1.0)}
    assert kept[0.0] == kept[0.5] == [False, True, False, False]
    assert kept[0.7] == [False, True, True, False]
    assert sum(kept[0.85]) == 3
    assert all(kept[1.0])


def test_top_k_keeps_ties_with_the_threshold() -> None:
    kept = torch.isfinite(filter_top_k(torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0]), 2))
    assert kept.tolist() == [False, True, True, True, False]
    assert torch.isfinite(filter_top_k(torch.zeros(3), 50)).all()


def test_filters_work_on_plain_logits_and_temperature_comes_last() -> None:
    logits = logits_for(50)
    kept = torch.isfinite(filter_top_p(logits, 0.9))
    assert 1 < kept.sum() < 50
    for temperature in (0.5, 5.0):
        assert torch.equal(probabilities(logits, Sampling(temperature, top_p=0.9)) > 0, kept)


def test_filters_leave_their_input_alone() -> None:
    logits = logits_for(50)
    before = logits.clone()
    probabilities(logits, Sampling(0.7, top_k=3, top_p=0.5))
    assert torch.equal(logits, before)


def test_greedy_is_one_hot_at_the_first_maximum() -> None:
    probs = probabilities(torch.tensor([0.0, 2.0, 2.0]), Sampling(0))
    assert probs.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"top_p": -1}, "top_p is -1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**options)


def test_randomness_goes_on_and_refuses_nonsense() -> None:
    random = Randomness.of(np.int64(3))
    assert Randomness.of(random) is random
    generator = random.on(torch.device("cpu"))
    assert generator is random.on(torch.device("cpu"))
    assert Randomness.of(None).on(torch.device("cpu")) is None
    with pytest.raises(InputError, match="seed is 'x'"):
        Randomness.of("x")
