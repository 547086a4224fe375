"""Arguments that only the CPU decoder refuses; the errors name the value and the remedy."""

import numpy as np
import pytest

from barkfast.errors import EngineError, InputError
from barkfast.jobs import Stop
from barkfast.native import load_native
from barkfast.runtime.cpu.packing import Entry
from contract.networks import make_job, torch_decoder
from cpu_engine.networks import CONFIG, cpu_decoder, needs_native, pack

pytestmark = needs_native


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slices": ((0, 50), (60, 121))}, r"slice \[60, 121\) of the vocabulary; .* expected 0 to 119"),
        ({"slices": ((7, 7),)}, "at least one token"),
        ({"slices": ()}, "without slices"),
        ({"stop": Stop(120)}, "the stop token is 120; expected 0 to 119"),
    ],
    ids=str,
)
def test_slices_that_cannot_be_drawn_from(fields: dict[str, object], message: str) -> None:
    decoder = cpu_decoder()
    bad, good = make_job(1, **fields), make_job(1)
    with pytest.raises(InputError, match=message):
        decoder.admit(bad)
    results = decoder.run_each([bad, good])
    assert isinstance(results[0], InputError)
    np.testing.assert_array_equal(results[1], torch_decoder(CONFIG).run([good])[0])


def test_other_devices() -> None:
    decoder = cpu_decoder()
    decoder.to("cpu")
    with pytest.raises(EngineError, match="cannot move to cuda:0; build it with engine='cuda'"):
        decoder.to("cuda:0")


def native_network(entries: list[Entry]) -> object:
    native = load_native()
    assert native is not None
    return native.Network(CONFIG.n_layer, CONFIG.n_head, CONFIG.n_embd, CONFIG.block_size, entries)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (0, "other", "transformer.h.1.mlp.c_fc.weight is missing"),
        (1, "table", "is a table; expected a matrix"),
        (2, 4, "has format 4; expected 0"),
        (2, 1, r"transformer.h.1.\* differ in format"),
        (3, 191, r"is \(191, 48\); expected \(192, 48\)"),
        (5, 0, "has no memory"),
    ],
)
def test_weights_that_do_not_fit(field: int, value: object, message: str) -> None:
    name = "transformer.h.1.mlp.c_fc.weight"
    entries = [tuple(value if i == field and e[0] == name else x for i, x in enumerate(e)) for e in pack().entries]
    native_network(pack().entries)
    with pytest.raises(ValueError, match=message):
        native_network(entries)


def test_what_is_no_entry() -> None:
    with pytest.raises(ValueError, match=r"expected \(name, kind, format, rows, cols, address"):
        native_network([("transformer.wte.weight", 1)])


def test_a_head_that_is_too_narrow() -> None:
    native = load_native()
    assert native is not None
    with pytest.raises(ValueError, match="n_embd=48, block_size=130 does not fit: .* a multiple of 16"):
        native.Network(CONFIG.n_layer, 2, CONFIG.n_embd, CONFIG.block_size, pack().entries)


def test_native_slots() -> None:
    owner = cpu_decoder(n_slots=2)
    decoder = owner._native
    for call in (decoder.pause, decoder.tokens, decoder.state, lambda slot: decoder.advance([slot], 1, 1.0)):
        for slot in (-1, 2):
            with pytest.raises(ValueError, match=f"slot is {slot}; expected 0 to 1"):
                call(slot)
    with pytest.raises(ValueError, match="slot 1 is listed twice"):
        decoder.advance([1, 0, 1], 1, 1.0)
    with pytest.raises(ValueError, match="has no prompt, and nothing is fed"):
        decoder.start(0, [], 1, [(0, 5)])
    with pytest.raises(ValueError, match="token 123 is fed; expected 0 to 122"):
        decoder.start(0, [123], 1, [(0, 5)])
    decoder.start(0, [1, 2], 1, [(0, 5)])
    with pytest.raises(ValueError, match="slot 0 is running; pause it first"):
        decoder.start(0, [1, 2], 1, [(0, 5)])
    with pytest.raises(ValueError, match="slot 1 drew nothing"):
        decoder.logits(1)
    assert decoder.advance([0, 1], 5, 1.0) == 2
    assert decoder.state(0) == (2, 1) and decoder.length(0) == 2


def test_native_levels() -> None:
    with pytest.raises(InputError, match="is 'sse9'; expected one of"):
        cpu_decoder(isa="sse9")
