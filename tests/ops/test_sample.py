"""The sampler against its reference, and special cases."""

import random

import pytest
import torch
from torch import Tensor

import barkfast_kernels.sample.triton as sample_module
from barkfast_kernels.random import gumbel_noise_reference
from barkfast_kernels.sample import sample, sample_reference
from barkfast_kernels.slots import DRAWN, FAILED, FINISHED, IDLE, RUNNING, STATUS, STOPPED, pack_slot
from ops.tools import DTYPES, device, poison, randn, row_list, slot_table

BLOCK_SIZE = 1024
STOP_ROW = 120
SLICES = [[10, 50], [60, 37]]


class State:
    """All that `sample` reads and writes, for slots that draw from slices of 50 and 37 rows, and a stop token."""

    def __init__(self, slots: Tensor, logits: Tensor, noise: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.slots, self.logits, self.noise = slots, logits, noise
        n_slots = len(slots)
        self.slices = torch.tensor(SLICES, dtype=torch.int32, device=device())
        self.tokens = torch.full((n_slots, BLOCK_SIZE), -7, dtype=torch.int32, device=device())
        # The tokens that forced slots take.
        self.tokens[:, :8] = torch.arange(8, device=device())
        self.wte, self.wpe = randn(130, 48, dtype=dtype, seed=8), randn(BLOCK_SIZE, 48, dtype=dtype, seed=9)
        self.x = poison(n_slots, 48)

    def copy(self) -> "State":
        other = State.__new__(State)
        other.__dict__ = {name: value.clone() for name, value in self.__dict__.items()}
        return other

    def run(self, function, rows: Tensor, *, filtered: bool, stop_row: int = STOP_ROW, **options) -> "State":
        """Return a copy on which `function` has run."""
        after = self.copy()
        parts = (after.logits, after.noise, after.slices, stop_row, after.tokens, after.wte, after.wpe, after.x)
        function(*parts, rows, after.slots, filtered=filtered, **options)
        return after

    def outcome(self) -> tuple[Tensor, ...]:
        return self.slots, self.tokens, self.x.nan_to_num(nan=1e9)


def _same(a: State, b: State) -> bool:
    return all(torch.equal(first, second) for first, second in zip(a.outcome(), b.outcome(), strict=True))


def _random_slot(rng: random.Random) -> Tensor:
    drawn = rng.choice([0, 0, 1, 2, 5, 1022])
    slot = pack_slot(
        position=rng.choice([0, 1, 63, 64, 1022, 1023]),
        limit=drawn + rng.choice([1, 1, 2, 700]),
        phase=rng.choice([0, 1, 7]),
        temperature=rng.choice([0.0, 0.3, 0.7, 1.0, 2.5]),
        top_k=rng.choice([0, 0, 1, 5, 40, 500]),
        top_p=rng.choice([2.0, 2.0, 0.0, 0.5, 0.9, 1.0, rng.random()]),
        min_p=rng.choice([2.0, 2.0, 0.2, 0.0, 1.0, rng.random() ** 3]),
        has_stop=rng.random() < 0.6,
        forced=rng.choice([0, 0, 0, 1, 3]),
        status=rng.choice([RUNNING.value] * 9 + [IDLE.value]),
    )
    slot[DRAWN.value] = drawn
    return slot


def _random_state(n: int, seed: int, dtype: torch.dtype = torch.float32) -> State:
    rng = random.Random(seed)
    slots = slot_table(*(_random_slot(rng) for _ in range(n)))
    logits = randn(n, 51, seed=seed + 1, scale=3)
    # The stop token often has the largest logit, so that it is drawn, or likely, in about half of the rows.
    for row in range(n):
        logits[row, rng.choice([37, 50])] += rng.choice([0.0, 4.0, 8.0])
    # Half of the rows have ties in logits, and so in greedy draws and at the filters' limits; -0 and 0 too.
    logits[::2] = (logits[::2] * 2).round() / 2
    noise = gumbel_noise_reference(seed, 0, 0, torch.arange(n)[:, None], torch.arange(51)[None, :]).to(device())
    for row in range(0, n, 7):
        logits[row, rng.randrange(51)] = rng.choice([float("nan"), float("inf"), -float("inf"), 1e37])
    return State(slots, logits, noise, dtype)


@pytest.mark.parametrize("stop_row", [STOP_ROW, -1])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_reference(dtype: torch.dtype, filtered: bool, stop_row: int) -> None:
    n = 600
    state = _random_state(n, seed=3, dtype=dtype)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).to(device(), torch.int32)
    rows = torch.cat([order[:50], row_list(-1, -1), order[50:]])
    # Logits and noise are indexed by row, not by slot.
    state.logits = torch.cat([state.logits, state.logits[:2]])
    state.noise = torch.cat([state.noise, state.noise[:2]])
    actual = state.run(sample, rows, filtered=filtered, stop_row=stop_row)
    expected = state.run(sample_reference, rows, filtered=filtered, stop_row=stop_row)
    for slot in range(n):
        if not torch.equal(actual.slots[slot], expected.slots[slot]):
            pytest.fail(f"slot {state.slots[slot].tolist()}: {actual.slots[slot, :4]} for {expected.slots[slot, :4]}")
    assert _same(actual, expected)
    # The cases reach every final status.
    counts = expected.slots[:, STATUS.value].bincount(minlength=5).tolist()
    assert all(counts[status.value] > 20 for status in (IDLE, RUNNING, FINISHED, FAILED))
    assert (counts[STOPPED.value] > 50) == (stop_row >= 0)


@pytest.mark.parametrize("filtered", [False, True])
def test_agrees_with_a_row_per_program(filtered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; a single row gives the same as the row in a batch."""
    state = _random_state(16, seed=5)
    rows = row_list(*range(16))
    together = state.run(sample, rows, filtered=filtered)
    monkeypatch.setattr(sample_module, "INTERPRETED", False)
    assert _same(state.run(sample, rows, filtered=filtered), together)


def test_filters_that_are_off_change_nothing() -> None:
    state = _random_state(300, seed=6)
    state.slots[:, 9], state.slots[:, 10] = 0, pack_slot(position=0, limit=1, top_p=2.0)[10]
    rows = row_list(*range(300))
    plain = state.run(sample, rows, filtered=False)
    assert _same(state.run(sample, rows, filtered=True), plain)
    # Also in a batch with slots that do filter.
    mixed = state.copy()
    mixed.slots[1::2, 9] = 3
    after = mixed.run(sample, rows, filtered=True)
    assert torch.equal(after.slots[::2], plain.slots[::2]) and torch.equal(after.tokens[::2], plain.tokens[::2])


def test_looks_at_nothing_but_a_slots_own_candidates() -> None:
    """Columns beyond its slice, the stop column of slots without stop token and greedy slots' noise may be anything."""
    slots = slot_table(
        pack_slot(position=0, limit=9, temperature=0.7, phase=1),
        pack_slot(position=0, limit=9, temperature=0.7, phase=1, has_stop=True),
        pack_slot(position=0, limit=9, temperature=0.0, phase=0, has_stop=True),
    )
    state = State(slots, randn(3, 51, seed=1), randn(3, 51, seed=2))
    rows = row_list(0, 1, 2)
    expected = state.run(sample_reference, rows, filtered=True)
    for buffer in (state.logits, state.noise):
        buffer[0, 37:] = float("nan")
        buffer[1, 38:] = float("nan")
    state.noise[2] = float("nan")
    after = state.run(sample, rows, filtered=True)
    assert _same(after, expected)
    assert (after.slots[:, STATUS.value] != FAILED.value).all()


def test_greedy_takes_the_first_of_the_largest() -> None:
    logits = torch.zeros(3, 51, device=device())
    logits[0, [3, 9]] = 1.0
    logits[1, 0], logits[1, 1:] = -0.0, 0.0
    logits[2, 20:] = 5.0
    slots = slot_table(*(pack_slot(position=0, limit=9, top_k=2, top_p=0.3) for _ in range(3)))
    after = State(slots, logits, logits * 0).run(sample, row_list(0, 1, 2), filtered=True)
    assert after.tokens[:, 0].tolist() == [10 + 3, 10 + 0, 10 + 20]


def test_greedy_stops_only_where_the_stop_token_leads() -> None:
    """The stop token's probability is 1 or 0, however close the runner-up."""
    logits = torch.full((3, 51), -5.0, device=device())
    logits[0, [4, 50]] = torch.tensor([1.0, 0.9], device=device())
    logits[1, [4, 50]] = torch.tensor([0.9, 1.0], device=device())
    logits[2, [4, 50]] = 1.0
    slots = slot_table(*(pack_slot(position=0, limit=9, has_stop=True, min_p=0.2) for _ in range(3)))
    after = State(slots, logits, logits * 0).run(sample, row_list(0, 1, 2), filtered=False)
    assert after.slots[:, STATUS.value].tolist() == [RUNNING.value, STOPPED.value, RUNNING.value]
    assert after.tokens[:, 0].tolist() == [14, STOP_ROW, 14]


def test_divides_by_the_temperature() -> None:
    """Exactly: a logit of 0 whose noise is the other logit's quotient ties with it, so the first of the two wins."""
    n = 400
    value = randn(n, seed=1, scale=10).abs()
    logits, noise = torch.full((n, 51), -1e4, device=device()), torch.zeros(n, 51, device=device())
    each = torch.arange(n, device=device())
    logits[each, each % 2], logits[each, 1 - each % 2] = value, 0.0
    noise[each, 1 - each % 2] = value / torch.tensor(0.7, device=device())
    slots = pack_slot(position=0, limit=9, temperature=0.7).to(device()).repeat(n, 1)
    after = State(slots, logits, noise).run(sample, row_list(*range(n)), filtered=False)
    assert (after.tokens[:, 0] == 10).all()


def test_top_p_of_one_keeps_what_has_no_mass() -> None:
    logits, noise = torch.full((1, 51), -500.0, device=device()), torch.zeros(1, 51, device=device())
    logits[0, :2], noise[0, 7] = 0.0, 1e4
    slots = slot_table(pack_slot(position=0, limit=9, temperature=1.0, top_p=1.0))
    assert State(slots, logits, noise).run(sample, row_list(0), filtered=True).tokens[0, 0] == 17


def test_a_following_job_goes_on_from_the_last_token() -> None:
    """A slot that finishes still has the embedding of its last token in x."""
    slots = slot_table(pack_slot(position=6, limit=1), pack_slot(position=1023, limit=1))
    state = State(slots, randn(2, 51, seed=1), randn(2, 51, seed=2))
    after = state.run(sample, row_list(0, 1), filtered=False)
    assert after.slots[:, STATUS.value].tolist() == [FINISHED.value] * 2
    assert torch.equal(after.x[0], after.wte[int(after.tokens[0, 0])] + after.wpe[7])
    assert after.x[1].isnan().all()
