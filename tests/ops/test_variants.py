"""Variants of a step's kernels: all of Triton's give the same bits, and data that is loaded early is correct."""

import functools
import json
import math
from typing import Any, ClassVar

import pytest
import torch

from barkfast.config import Sampling
from barkfast.jobs import Stop
from barkfast.runtime.cuda.device import Options
from barkfast_kernels import launch as launching
from barkfast_kernels.decode_attention import decode_attention, decode_attention_reference
from barkfast_kernels.decode_attention import triton as attention_module
from barkfast_kernels.decode_attention.reference import combined
from barkfast_kernels.launch import INTERPRETED
from barkfast_kernels.slots import POSITION
from barkfast_kernels.variant import DEFAULT, VARIANTS, Variant
from contract.networks import STOP, make_job
from cuda_engine.networks import cuda_decoder
from ops import tools
from sweeps import with_corner

TRITON = {name: variant for name, variant in VARIANTS.items() if variant.kernels == "triton"}
BASE = VARIANTS["T0 as on the H100"]


def traces(variant: Variant, n_slots: int) -> list[torch.Tensor]:
    """Tokens of several jobs, and the KV cache and residual stream after them."""
    options = Options(pdl=Options.for_device(tools.device()).pdl, variant=variant)
    decoder = cuda_decoder(torch.float32, n_slots=n_slots, options=options)
    stop = Stop(STOP, 0.2)
    jobs = [
        make_job(0, length=1, steps=3, sampling=Sampling(0.7)),
        make_job(5, length=33, steps=3, sampling=Sampling(0.9, top_k=9, top_p=0.7), stop=stop),
        make_job(4, length=17, steps=2, slices=((50, 100), (0, 50))),
    ]
    tokens = decoder.run(jobs)
    return [*map(torch.from_numpy, tokens), decoder.state.keys, decoder.state.values, decoder.state.x]


@functools.cache
def base_traces(n_slots: int) -> list[torch.Tensor]:
    return traces(BASE, n_slots)


OTHERS = [name for name, variant in TRITON.items() if variant != BASE]
USUAL = next(name for name, variant in TRITON.items() if variant == DEFAULT)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("n_slots", [1, 2])
@pytest.mark.parametrize("name", with_corner(OTHERS, USUAL))
def test_every_triton_variant_gives_the_same_bits(name: str, n_slots: int) -> None:
    for ours, theirs in zip(traces(TRITON[name], n_slots), base_traces(n_slots), strict=True):
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_survives_json(variant: Variant) -> None:
    assert Variant.from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


@pytest.mark.parametrize(
    "entries",
    [{"kernels": "metal"}, {"l2_ahead": 3}, {"l2_ahead": True}, {"one_trip": 1}, {"splits": 5}, {"carveout": 101}]
    + [{"blocks": "128"}, {"splits": [4]}, {"speed": 2}],
    ids=str,
)
def test_what_is_no_variant_is_named(entries: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(entries))):
        Variant.from_dict(entries)


class Compiled:
    """A stand-in for one of Triton's functions, which records its launches."""

    do_not_specialize = ("ahead_bytes",)
    launched: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, fn: str, do_not_specialize: tuple[str, ...] = ()) -> None:
        self.fn, self.function = fn, object()

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self

    def __call__(self, **arguments: Any) -> "Compiled":
        self.launched.append(arguments | {"kernel": self})
        return self


def test_what_a_variant_changes_in_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[tuple[Any, int]] = []
    monkeypatch.setattr(launching, "INTERPRETED", False)
    monkeypatch.setattr(launching, "prefer_shared", lambda function, carveout: shares.append((function, carveout)))
    monkeypatch.setattr(Compiled, "launched", [])
    kernel, x, later = Compiled("kernel"), torch.zeros(3), torch.zeros(5, 7, dtype=torch.int8)

    def launch(variant: Variant, pdl: bool) -> dict[str, Any]:
        launching.launch(kernel, (1,), {"x": x}, {}, num_warps=2, pdl=pdl, variant=variant, ahead=later)
        return Compiled.launched[-1]

    base = launch(BASE, True)
    assert base["kernel"] is kernel and base["launch_pdl"] and not shares
    assert (base["TRIGGER_FIRST"], base["ONE_TRIP"]) == (False, False)
    best = launch(DEFAULT, True)
    assert (best["TRIGGER_FIRST"], best["ONE_TRIP"], best["PDL"]) == (True, True, True)
    assert best["ahead"] is later and best["ahead_bytes"] == 35 and best["AHEAD"] == 64
    # Not the base's handle, and the same one each time.
    assert best["kernel"] is not kernel and shares == [(best["kernel"].function, 100)]
    assert launch(DEFAULT, True)["kernel"] is best["kernel"]
    # Without overlap nothing is prefetched.
    alone = launch(DEFAULT, False)
    assert alone["ahead"] is x and (alone["ahead_bytes"], alone["AHEAD"]) == (0, 0)
    assert alone["kernel"] is kernel and "launch_pdl" not in alone and len(shares) == 2


@pytest.mark.sweep(6)
@pytest.mark.skipif(not INTERPRETED, reason="memory changes during a wait only in the interpreter")
@pytest.mark.parametrize("steps", [0, 1, 8, 300])
@pytest.mark.parametrize("position", [0, 7, 64, 500, 1023, 1024])
def test_keys_of_an_earlier_position_are_loaded_again(
    position: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the wait the slot is `steps` positions earlier, and what was written since is NaN."""
    n_head, block_size, head_dim, splits = 2, 1024, 32, 8
    earlier = max(position - steps, 0)
    q = tools.randn(1, n_head * head_dim, seed=1)
    keys, values = (tools.randn(1, n_head, block_size, head_dim, seed=seed) for seed in (2, 3))
    rows, slots = tools.row_list(0), tools.running_slots([position])
    expected = tools.poison(1, n_head, splits, head_dim), tools.poison(1, n_head, splits, 2)
    decode_attention_reference(q, keys, values, *expected, rows, slots)
    seen = keys.clone(), values.clone(), slots.clone(), q.clone()
    changing = (keys, values, slots, q)
    changes: list[bool] = []

    def begin(_: object) -> None:
        for cache in (keys, values):
            cache[:, :, earlier:] = math.nan
        slots[0, POSITION.value] = earlier
        q.fill_(math.nan)

    def wait(_: object) -> None:
        changes.append(True)
        for tensor, content in zip(changing, seen, strict=True):
            tensor.copy_(content)

    # pdl_launch is a program's first line; pdl_wait is the end of what it may do early.
    monkeypatch.setattr(attention_module, "pdl_launch", begin)
    monkeypatch.setattr(attention_module, "pdl_wait", wait)
    actual = tools.poison(1, n_head, splits, head_dim), tools.poison(1, n_head, splits, 2)
    decode_attention(q, keys, values, *actual, rows, slots, pdl=False, variant=DEFAULT)
    assert len(changes) == n_head * splits
    assert tools.rms_error(combined(actual[0][0], actual[1][0]), combined(expected[0][0], expected[1][0])) < 2e-6
