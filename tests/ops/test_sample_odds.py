"""The sampler against barkfast's torch sampler: which candidates the filters keep, when it stops, odds of draws."""

import math

import pytest
import torch
from torch import Tensor

from barkfast.config import Sampling
from barkfast.runtime.sampling import probabilities
from barkfast_kernels.random import gumbel_noise_reference
from barkfast_kernels.sample import sample
from barkfast_kernels.sample.reference import filter_reference
from barkfast_kernels.slots import RUNNING, STATUS, STOPPED, pack_slot
from ops.test_sample import SLICES, STOP_ROW, State
from ops.tools import device, randn, row_list, slot_table

SAMPLINGS = {
    "temperature": Sampling(temperature=0.7),
    "top_k": Sampling(temperature=0.8, top_k=9),
    "top_p": Sampling(temperature=1.3, top_p=0.8),
    "both": Sampling(temperature=0.7, top_k=12, top_p=0.9),
    "hot": Sampling(temperature=2.5, top_k=30, top_p=0.97),
}


def _slot_for(sampling: Sampling, **options) -> Tensor:
    top_p = 2.0 if sampling.top_p is None else sampling.top_p
    temperature = sampling.temperature or 0.0
    return pack_slot(position=0, limit=9, temperature=temperature, top_k=sampling.top_k or 0, top_p=top_p, **options)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_survivors_are_those_of_the_torch_sampler(sampling: Sampling) -> None:
    """Noise that lets one candidate win at a time shows which candidates the filters keep."""
    for seed in range(4):
        logits = randn(50, seed=seed, scale=2)
        expected = probabilities(logits, sampling) > 0
        assert torch.equal(
            filter_reference(logits, 2 if sampling.top_p is None else sampling.top_p, sampling.top_k or 0) > -torch.inf,
            expected,
        )
        slots = _slot_for(sampling).to(device()).repeat(50, 1)
        state = State(slots, logits.repeat(50, 1), torch.eye(50, device=device()) * 1e4)
        state.logits, state.noise = (torch.nn.functional.pad(t, (0, 1)) for t in (state.logits, state.noise))
        drawn = state.run(sample, row_list(*range(50)), filtered=True).tokens[:, 0] - SLICES[0][0]
        assert torch.equal(drawn == torch.arange(50, device=device()), expected)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_stops_at_the_torch_samplers_probability(sampling: Sampling) -> None:
    for seed in range(2):
        logits = randn(51, seed=seed, scale=2)
        logits[50] = logits.max() - 0.3
        chance = float(probabilities(logits, sampling)[50])
        assert 0 < chance < 1
        # Just below the probability, just above, and off; the stop token itself is never drawn.
        bounds = [chance * (1 - 1e-5), chance * (1 + 1e-5), 2.0]
        slots = slot_table(*(_slot_for(sampling, has_stop=True, min_p=bound) for bound in bounds))
        noise = torch.zeros(3, 51, device=device())
        noise[:, 50] = -1e4
        after = State(slots, logits.repeat(3, 1), noise).run(sample, row_list(0, 1, 2), filtered=True)
        assert after.slots[:, STATUS.value].tolist() == [STOPPED.value, RUNNING.value, RUNNING.value]
        assert after.tokens[0, 0] == STOP_ROW and after.x[0].isnan().all()


def chi_square_p(counts: Tensor, odds: Tensor) -> float:
    """The p-value of `counts` under `odds`; entries with odds 0 must not occur at all."""
    assert not counts[odds == 0].any()
    expected = odds.double() * counts.sum()
    common = expected >= 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    statistic = ((observed - expected).square() / expected.clamp_min(1e-9)).sum()
    degrees = torch.tensor((len(observed) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, statistic.cpu() / 2))


@pytest.fixture(scope="module")
def noise() -> Tensor:
    """100000 draws' noise for 25 candidates: one seed, draw numbers from 0 on, as one long request would have."""
    index = torch.arange(25, device=device())[None, :]
    draws = torch.arange(100_000, device=device())[:, None].split(5000)
    return torch.cat([gumbel_noise_reference(123456789, 42, 0, draw, index) for draw in draws])


@pytest.mark.parametrize(
    ("name", "stop"),
    [("temperature", False), ("temperature", True), ("top_k", True), ("top_p", True), ("both", True)],
)
def test_draws_have_the_right_odds(name: str, stop: bool, noise: Tensor) -> None:
    sampling, n = SAMPLINGS[name], len(noise)
    logits = randn(25, seed=17, scale=2)
    logits[24] = logits.max() - 1
    slots = _slot_for(sampling, has_stop=stop).to(device()).repeat(n, 1)
    tokens = torch.zeros(n, 2, dtype=torch.int32, device=device())
    x, wte = torch.zeros(n, 16, device=device()), torch.zeros(130, 16, device=device())
    slices = torch.tensor([[10, 24]], dtype=torch.int32, device=device())
    rows = torch.arange(n, dtype=torch.int32, device=device())
    filtered = sampling.top_k is not None or sampling.top_p is not None
    sample(logits.repeat(n, 1), noise, slices, STOP_ROW, tokens, wte, wte[:2], x, rows, slots, filtered=filtered)
    drawn = torch.where(tokens[:, 0] == STOP_ROW, 24, tokens[:, 0] - 10)
    assert torch.equal(slots[:, STATUS.value] == STOPPED.value, drawn == 24)
    candidates = logits[: 24 + stop]
    odds = torch.zeros(25, device=device())
    odds[: len(candidates)] = probabilities(candidates, sampling)
    counts = drawn.bincount(minlength=25)
    # Seeds are fixed, so this fails always or never.
    assert chi_square_p(counts, odds) > 1e-3
    # And it would fail a sampler whose temperature is 10 % off.
    assert sampling.temperature is not None
    wrong = Sampling(temperature=sampling.temperature * 1.1, top_k=sampling.top_k, top_p=sampling.top_p)
    odds[: len(candidates)] = probabilities(candidates, wrong)
    assert chi_square_p(counts, odds) < 1e-6


def test_chi_square_knows_a_fair_die() -> None:
    odds = torch.full((6,), 1 / 6)
    assert chi_square_p(torch.tensor([100, 100, 100, 100, 100, 100]), odds) == pytest.approx(1)
    # 22, 24, 38, 30, 46, 44 of 204: statistic 15.29, p for 5 degrees of freedom 0.0092 (with the empty rest 6: 0.018).
    p = chi_square_p(torch.tensor([22, 24, 38, 30, 46, 44]), odds)
    assert math.isclose(p, 0.0181, abs_tol=3e-4)
