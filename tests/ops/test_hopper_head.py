"""The CUDA kernel that ends a decode step against its references: on a GPU, or in an emulator of its threads."""

import copy
import random
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from barkfast_kernels.hopper import HeadDraw, HopperOps, Shape, why_not, why_not_head
from barkfast_kernels.hopper.head import head_bytes
from barkfast_kernels.norm_head.reference import norm_head_reference
from barkfast_kernels.sample.reference import sample_reference
from barkfast_kernels.slots import DRAWN, FAILED, FINISHED, IDLE, MIN_P_F, RUNNING, STATUS, STOPPED, pack_slot

from .emulator import SHARED_BYTES, Emulator, find_compiler
from .test_hopper import DEVICE, N_POSITIONS, SHAPES, assert_close, name_of
from .test_sample_odds import chi_square_p

SMALL = Shape(128, 4, N_POSITIONS, torch.float32, False)
# The head is never int8, so one int8 network is enough.
SHAPES = [
    shape
    for shape in SHAPES
    if (not shape.int8 or (shape.n_embd, shape.dtype) == (128, torch.bfloat16)) and shape.variant == SMALL.variant
]
EACH = pytest.mark.parametrize("shape", SHAPES, ids=name_of)
# The kinds of vocabulary: one slice and a stop token, as the semantic network has, and two without, as the coarse one.
ONE, TWO = [[10, 50]], [[10, 50], [60, 37]]
STOP_ROW = 120
VOCABULARIES = [(ONE, STOP_ROW), (TWO, -1), (TWO, STOP_ROW)]
VOCABULARY = 130
STAGE = 3
# Fills outputs before a launch, to show what the kernel did not write.
POISON = 7.0


def emulator_for(shape: Shape) -> Emulator | None:
    """An emulator for the shape; None on a GPU."""
    if DEVICE.type == "cuda":
        reason = why_not(shape, DEVICE)
        if reason:
            pytest.skip(reason)
        return None
    if find_compiler() is None:
        pytest.skip("no C++ compiler to emulate the kernels with")
    return Emulator(shape)


def make(shape: Shape, blocks: int, emulator: Emulator | None) -> HeadDraw:
    """The kernel, on a GPU or emulated."""
    return HeadDraw(shape, blocks, HopperOps(shape, emulator).program, DEVICE)


class Case:
    """All tensors that the kernel reads and writes, for the given slots."""

    def __init__(self, shape: Shape, slots: list[Tensor], slices: list[list[int]], stop_row: int) -> None:
        self.shape, self.stop_row, n, width = shape, stop_row, len(slots), shape.n_embd
        generator = torch.Generator().manual_seed(width)

        def floats(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator)

        def stored(values: Tensor) -> Tensor:
            return values.to(DEVICE, shape.dtype)

        self.x = (floats(n, width) * 2 + 0.3).to(DEVICE)
        self.norm = (stored(1 + floats(width) / 4), stored(floats(width) / 4))
        self.weight = stored(floats(VOCABULARY, width) * 3 * width**-0.5)
        self.slices = torch.tensor(slices, dtype=torch.int32, device=DEVICE)
        self.wte, self.wpe = stored(floats(VOCABULARY, width)), stored(floats(N_POSITIONS, width))
        self.tokens = torch.randint(VOCABULARY, (n, N_POSITIONS), generator=generator).to(DEVICE, torch.int32)
        self.slots = torch.stack(slots).to(DEVICE)
        self.columns = max(slice_width for _, slice_width in slices) + (stop_row >= 0)
        self.logits = torch.empty(0)

    def candidate_logits(self, values: Tensor) -> None:
        """Make every slot's logits about `values`, one per vocabulary row; equal values give equal bits."""
        self.x[:] = self.x[0]
        h = torch.nn.functional.layer_norm(self.x[0], (self.shape.n_embd,), *(t.float() for t in self.norm))
        direction = (h / h.square().sum()).cpu()
        self.weight = (values[:, None] * direction[None, :]).to(DEVICE, self.shape.dtype)

    def after(self, draw: HeadDraw | Tensor | None, *rows: int, emulator: Emulator | None = None) -> "Case":
        """Return a copy on which `launch` has run."""
        c = copy.copy(self)
        c.x, c.tokens, c.slots = self.x.clone(), self.tokens.clone(), self.slots.clone()
        c.logits = torch.full((len(rows), self.columns), POISON, device=DEVICE)
        c.launch(draw, *rows, emulator=emulator)
        return c

    def launch(self, draw: HeadDraw | Tensor | None, *rows: int, emulator: Emulator | None = None) -> None:
        """Run in place: the kernel, its references (None), or the references on given logits (a tensor).

        For equal weight rows the kernel computes equal bits, and torch does not.
        """
        listed = torch.tensor(rows, dtype=torch.int32, device=DEVICE)
        head = (self.x, *self.norm, self.weight, self.slices, self.stop_row, self.logits)
        tables = (self.wte, self.wpe)
        if not isinstance(draw, HeadDraw):
            noise = torch.full_like(self.logits, float("nan"))
            norm_head_reference(*head, noise, listed, self.slots, stage=STAGE)
            self.logits = self.logits if draw is None else draw.clone()
            left = (self.logits, noise, self.slices, self.stop_row, self.tokens, *tables, self.x, listed, self.slots)
            sample_reference(*left, filtered=False)
            return
        with self.arriving(emulator):
            draw(*head, self.tokens, *tables, listed, self.slots, stage=STAGE, pdl=True)

    def arriving(self, emulator: Emulator | None) -> AbstractContextManager[Any]:
        """Within the block, what other kernels write appears only after a block has waited."""
        if emulator is None:
            return nullcontext()
        nothing = torch.full_like(self.x, float("nan"))
        # Harmful words: a slot that runs, in another slice, with another seed.
        wrong = self.slots + 1
        wrong[:, STATUS.value] = RUNNING.value
        tokens = torch.full_like(self.tokens, 5)
        return emulator.changing((self.x, nothing), (self.slots, wrong), (self.tokens, tokens))

    def same_as(self, other: "Case") -> bool:
        """Whether everything that the kernel writes is equal bit for bit."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("x", "tokens", "slots", "logits")]
        return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in pairs)


def assert_agree(actual: Case, expected: Case) -> None:
    """Tokens, slot words and embeddings are bit-equal; logits are equal up to the order of sums."""
    assert torch.equal(actual.slots, expected.slots)
    assert torch.equal(actual.tokens, expected.tokens)
    assert torch.equal(actual.x, expected.x)
    untouched = expected.logits == POISON
    assert torch.equal(actual.logits == POISON, untouched)
    assert_close(actual.logits, expected.logits)


def slot_with(drawn: int = 0, **options: Any) -> Tensor:
    """A slot that has drawn `drawn` tokens."""
    slot = pack_slot(**{"position": 20, "limit": 900, "seed": 5} | options)
    slot[DRAWN.value] = drawn
    return slot


# One slot of each kind in a batch of eight: the third does not run.
KINDS = [
    slot_with(temperature=0.7, has_stop=True),
    slot_with(temperature=0.0, phase=1),
    slot_with(temperature=1.0, status=FINISHED.value),
    slot_with(temperature=0.3, drawn=2, limit=3, seed=2**64 - 9, has_stop=True),
    slot_with(temperature=1.0, position=N_POSITIONS - 1, first_draw=2**31 - 1, phase=1),
    slot_with(temperature=2.5, drawn=1, forced=2, has_stop=True, min_p=0.0),
    slot_with(temperature=0.9, position=N_POSITIONS - 2, seed=2**40 + 1),
    slot_with(temperature=0.0, has_stop=True, min_p=0.5, drawn=7),
]
ROWS = (3, 1, 0, 7, -1, 2, 5, 4)


@pytest.mark.sweep(9)
@pytest.mark.parametrize(("slices", "stop_row"), VOCABULARIES, ids=["stop", "two", "both"])
@EACH
def test_agrees_with_its_references(shape: Shape, slices: list[list[int]], stop_row: int) -> None:
    emulator, case = emulator_for(shape), Case(shape, KINDS, slices, stop_row)
    gain, offset = case.norm
    # Cases: a block's rows in several pieces, candidates for several of its warps, and more blocks than columns.
    for blocks, norm in ((2, (gain, offset)), (1, (gain, None)), (53, (gain, offset))):
        if why_not_head(shape, case.columns, len(slices), blocks, SHARED_BYTES):
            continue
        case.norm = norm
        expected = case.after(None, *ROWS)
        actual = case.after(make(shape, blocks, emulator), *ROWS, emulator=emulator)
        assert_agree(actual, expected)
        assert torch.equal(expected.x[2], case.x[2]) and (expected.logits[4:6] == POISON).all()


def test_agrees_at_the_size_of_the_semantic_network() -> None:
    """10001 candidates in 128 blocks (79 rows each, fewer in the last), and in 132 blocks."""
    shape = Shape(1024, 16, N_POSITIONS, torch.bfloat16, False)
    emulator, case = emulator_for(shape), Case(shape, KINDS[:1], [[0, 10000]], 10000)
    generator = torch.Generator().manual_seed(3)
    case.weight = torch.randn(10048, 1024, generator=generator).to(DEVICE, shape.dtype) / 16
    case.wte = torch.randn(10048, 1024, generator=generator).to(DEVICE, shape.dtype)
    expected = case.after(None, 0)
    assert int(expected.tokens[0, 0]) > 128
    for blocks in (128, 132):
        assert_agree(case.after(make(shape, blocks, emulator), 0, emulator=emulator), expected)


def random_slot(rng: random.Random) -> Tensor:
    drawn = rng.choice([0, 0, 1, 2, 5, 1022])
    return slot_with(
        drawn,
        position=rng.choice([0, 1, 63, 1022, 1023]),
        limit=drawn + rng.choice([1, 2, 700]),
        phase=rng.choice([0, 1, 7]),
        seed=rng.randrange(2**64),
        first_draw=rng.randrange(2**31),
        temperature=rng.choice([0.0, 0.3, 0.7, 1.0, 2.5]),
        min_p=rng.choice([2.0, 2.0, 0.2, 0.0, 1.0, rng.random() ** 3]),
        has_stop=rng.random() < 0.6,
        forced=rng.choice([0, 0, 0, 1, 3]),
        status=rng.choice([RUNNING.value] * 9 + [IDLE.value]),
    )


@pytest.mark.parametrize("stop_row", [STOP_ROW, -1])
def test_agrees_for_many_slots(stop_row: int) -> None:
    """Every final status occurs many times; with ties, and with a stop token that often has the largest logit."""
    rng, ends = random.Random(9), torch.zeros(5, dtype=torch.int64)
    emulator = emulator_for(SMALL)
    draw = make(SMALL, 4, emulator)
    for round_ in range(60):
        case = Case(SMALL, [random_slot(rng) for _ in range(8)], TWO, stop_row)
        values = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(round_)) * 3
        if round_ % 2:
            values = values.round()
        values[STOP_ROW] = values[10:97].max() + rng.choice([-3.0, -1.0, 0.0, 1.0])
        case.candidate_logits(values)
        if round_ % 5 == 0:
            # A row that only one of the slices has, or the stop token.
            case.weight[rng.choice([10, 59, 60, 96, STOP_ROW])] = rng.choice([float("nan"), float("inf")])
        actual = case.after(draw, *range(8), emulator=emulator)
        expected = case.after(actual.logits, *range(8))
        for slot in range(8):
            told = f"slot {case.slots[slot].tolist()}: {actual.slots[slot, :4]} for {expected.slots[slot, :4]}"
            assert torch.equal(actual.slots[slot], expected.slots[slot]), told
        assert torch.equal(actual.tokens, expected.tokens) and torch.equal(actual.x, expected.x)
        ends += expected.slots[:, STATUS.value].cpu().bincount(minlength=5)
    counts = ends.tolist()
    assert all(counts[status.value] > 20 for status in (IDLE, RUNNING, FINISHED, FAILED))
    assert (counts[STOPPED.value] > 50) == (stop_row >= 0)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.n_embd in (1024, 128)], ids=name_of)
def test_neither_the_batch_nor_the_order_of_blocks_changes_a_bit(shape: Shape) -> None:
    emulator, case = emulator_for(shape), Case(shape, KINDS, TWO, STOP_ROW)
    draw = make(shape, 7, emulator)
    together = case.after(draw, *ROWS)
    for row in (0, 2, 6, 7):
        slot, alone = ROWS[row], case.after(draw, ROWS[row])
        assert torch.equal(alone.logits[0], together.logits[row])
        for name in ("x", "tokens", "slots"):
            assert torch.equal(getattr(alone, name)[slot], getattr(together, name)[slot])
    if emulator is None:
        return
    for first in (1, 4, 6):
        emulator.begin_with_block(first)
        assert case.after(draw, *ROWS).same_as(together)
    emulator.begin_with_block(0)


def test_one_step_follows_another() -> None:
    """Each step continues from the x of the step before, and from the state that the kernel keeps between launches."""
    emulator = emulator_for(SMALL)
    draw = make(SMALL, 3, emulator)
    slots = [slot_with(temperature=0.8, seed=s, limit=4 + s, position=N_POSITIONS - 6) for s in range(3)]
    expected = Case(SMALL, slots, TWO, -1).after(None, 0, 1, 2)
    actual = Case(SMALL, slots, TWO, -1).after(draw, 0, 1, 2)
    for _ in range(7):
        expected.launch(None, 2, 0, 1)
        actual.launch(draw, 2, 0, 1)
        assert_agree(actual, expected)
    assert expected.slots[:, STATUS.value].tolist() == [FINISHED.value] * 3
    assert len(expected.tokens[:, :4].unique()) > 6


def test_equal_logits_go_to_the_first() -> None:
    """In one block or several, in any order of blocks; -0 and 0 are equal."""
    emulator = emulator_for(SMALL)
    for blocks in (1, 6):
        draw = make(SMALL, blocks, emulator)
        for leaders, rest, best in (
            ([13, 19], -1.0, 13),
            ([30, 50, 58], 1.0, 30),
            ([], 0.0, 10),
            ([59, STOP_ROW], 0.5, 59),
        ):
            case = Case(SMALL, [slot_with(has_stop=True)], ONE, STOP_ROW)
            values = torch.full((VOCABULARY,), rest)
            values[leaders] = 2.0
            case.candidate_logits(values)
            if not leaders:
                case.weight[10] *= -1
            for first in range(blocks):
                if emulator is not None:
                    emulator.begin_with_block(first)
                assert case.after(draw, 0).tokens[0, 0] == best
            if emulator is not None:
                emulator.begin_with_block(0)


def test_hardly_any_temperature_is_greedy() -> None:
    """Where logit / temperature would be infinite for several."""
    case = Case(SMALL, [slot_with(temperature=t) for t in (0.0, 1e-30, 1e-38, 1e-45)], ONE, STOP_ROW)
    case.x[:] = case.x[0]
    after = case.after(make(SMALL, 4, emulator_for(SMALL)), 0, 1, 2, 3)
    assert len(after.tokens[:, 0].unique()) == 1
    assert after.tokens[0, 0] == 10 + int(after.logits[0, :50].argmax()) > 10
    assert (after.slots[:, STATUS.value] == RUNNING.value).all()


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_stops_at_the_stop_tokens_probability(temperature: float) -> None:
    """With min_p just below the stop token's probability over all blocks, and not just above, whatever is drawn."""
    emulator = emulator_for(SMALL)
    case = Case(SMALL, [slot_with(temperature=temperature, has_stop=True) for _ in range(3)], ONE, STOP_ROW)
    values = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)) * 2
    values[STOP_ROW] = values[10:60].max() - 1
    case.candidate_logits(values)
    chance = float((case.after(None, 0).logits[0].double() / temperature).softmax(0)[50])
    for slot, bound in enumerate((chance * (1 - 1e-5), chance * (1 + 1e-5), 2.0)):
        case.slots[slot, MIN_P_F.value] = pack_slot(position=0, limit=1, min_p=bound)[MIN_P_F.value]
    for blocks in (1, 5):
        after = case.after(make(SMALL, blocks, emulator), 0, 1, 2)
        assert after.slots[:, STATUS.value].tolist() == [STOPPED.value, RUNNING.value, RUNNING.value]
        assert after.tokens[0, 0] == STOP_ROW and after.tokens[1, 0] == after.tokens[2, 0] != STOP_ROW
        assert torch.equal(after.x[0], case.x[0])


def test_only_a_slots_own_candidates_can_fail_it() -> None:
    emulator = emulator_for(SMALL)
    draw = make(SMALL, 4, emulator)
    slots = [slot_with(), slot_with(phase=1), slot_with(has_stop=True), slot_with(temperature=0.7, phase=1)]
    for row, failed in ((59, [0, 2]), (60, [1, 3]), (STOP_ROW, [2]), (9, []), (97, [])):
        for bad in (float("nan"), float("inf"), -float("inf")):
            case = Case(SMALL, slots, TWO, STOP_ROW)
            case.weight[row] = bad
            after = case.after(draw, 0, 1, 2, 3)
            expected = [FAILED.value if slot in failed else RUNNING.value for slot in range(4)]
            assert after.slots[:, STATUS.value].tolist() == expected
            for slot in failed:
                case.slots[slot, STATUS.value] = FAILED.value
                for name in ("x", "tokens", "slots"):
                    assert torch.equal(getattr(after, name)[slot], getattr(case, name)[slot])
    # A vector that is not finite fails only its own row.
    case = Case(SMALL, slots, TWO, STOP_ROW)
    case.x[1, 7] = float("nan")
    status = case.after(draw, 0, 1, 2, 3).slots[:, STATUS.value].tolist()
    assert status == [RUNNING.value, FAILED.value, RUNNING.value, RUNNING.value]


@pytest.mark.parametrize("has_stop", [False, True])
def test_draws_have_the_right_odds(has_stop: bool) -> None:
    """4000 draws from 25 candidates by eight slots with constant x, in several blocks."""
    emulator = emulator_for(SMALL)
    draw = make(SMALL, 3, emulator)
    slots = [
        slot_with(temperature=0.7, has_stop=has_stop, limit=9999, first_draw=1000 * s, position=0) for s in range(8)
    ]
    case = Case(SMALL, slots, [[10, 24]], STOP_ROW)
    values = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(17)) * 2
    values[STOP_ROW] = values[10:34].max() - 1
    case.candidate_logits(values)
    case.wte.zero_()
    case.wpe[:] = case.x[0]
    case.logits = torch.full((8, case.columns), POISON, device=DEVICE)
    for _ in range(500):
        case.launch(draw, *range(8))
        case.slots[:, STATUS.value] = RUNNING.value
    drawn = case.tokens[:, :500].flatten().cpu()
    counts = torch.where(drawn == STOP_ROW, 24, drawn - 10).bincount(minlength=25)
    logits = torch.cat([values[10:34], values[STOP_ROW][None] if has_stop else torch.tensor([-torch.inf])])
    # Seeds are fixed, so this fails always or never.
    assert chi_square_p(counts, (logits / 0.7).softmax(0)) > 1e-3
    # And it would fail a sampler whose temperature is off by a third.
    assert chi_square_p(counts, (logits / 0.95).softmax(0)) < 1e-6


def test_what_it_does_not_serve() -> None:
    large = Shape(1024, 16, 1024, torch.bfloat16, False)
    room = SHARED_BYTES
    for blocks in (128, 132):
        assert why_not_head(large, 10001, 1, blocks, room) is None
        assert why_not_head(large, 1024, 2, blocks, room) is None
    assert head_bytes(large, 10001, 1, 128) == 79 * 2048
    assert head_bytes(large, 1024, 2, 128) == (8 + 16) * 2048
    single = Shape(1024, 16, 1024, torch.float32, False)
    assert "shared memory" in (why_not_head(single, 10001, 1, 128, room) or "")
    assert why_not_head(single, 1024, 2, 128, room) is None
    assert "1251 of 10001 candidates" in (why_not_head(large, 10001, 1, 8, room) or "")
    assert "9 slices" in (why_not_head(large, 100, 9, 128, room) or "")
    assert "161 blocks" in (why_not_head(large, 100, 1, 161, room) or "")
    emulator = emulator_for(SMALL)
    case = Case(SMALL, [slot_with()] * 9, ONE, -1)
    with pytest.raises(ValueError, match="9 rows"):
        case.after(make(SMALL, 4, emulator), *range(9))
    case = Case(SMALL, [slot_with()], [[0, 129]], -1)
    with pytest.raises(ValueError, match="129 of 129 candidates"):
        case.after(make(SMALL, 1, emulator), 0)
