"""Prefill of whole prompts in native code, against the network in plain torch: hidden states, keys and values."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from barkfast.config import GPTConfig
from barkfast.models.gpt import GPT, KVCache
from barkfast.native import load_native
from barkfast.runtime.cpu.kv_cache import allocate_cache, unpack_cache
from barkfast.runtime.cpu.packing import Format, Packed, pack_network
from barkfast.runtime.decoder import Decoder
from contract.networks import gpt_tensors, make_job, torch_decoder
from cpu_engine.networks import CONFIG, cpu_decoder, isas, make_pool, needs_native, packed_tensors
from ops.tools import rms_error

pytestmark = needs_native

NARROW = GPTConfig(2, 1, 32, 123, 120, 40, bias=False)
WIDE = dataclasses.replace(CONFIG, n_head=2, n_embd=128, block_size=200)
# More than one block of rows, of queries and of panels.
MIDDLE = GPTConfig(4, 4, 256, 123, 120, 320, bias=False)
# Around the sizes of a panel, a block of queries and a block of rows.
LENGTHS = [1, 2, 15, 16, 17, 47, 49, 97, 130, 191, 193]
# Rounding of weights and inputs: bfloat16 to 8 bits, int8 to 1/127 of a row's largest number (0.6 % each per product).
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 3e-2}


class Prompts:
    """The native layers for prompts, and the KV cache that they fill."""

    def __init__(self, packed: Packed, config: GPTConfig = CONFIG, *, threads: int = 2, isa: str = "") -> None:
        native = load_native()
        self.config, self._packed = config, packed
        network = native.Network(config.n_layer, config.n_head, config.n_embd, config.block_size, packed.entries)
        self._keys, self._values = allocate_cache(config, 1, Format(network.cache_format))
        for memory in (self._keys, self._values):
            # NaN: nothing beyond the prompt may reach a result.
            memory.view(torch.uint8).fill_(0xFF)
        addresses = self._keys.data_ptr(), self._values.data_ptr()
        self._native = native.Trunk(network, make_pool(threads), *addresses, isa=isa)

    def prefill(self, prompt: np.ndarray, n_merged: int = 0) -> Tensor:
        """The last position's hidden state, (n_embd,)."""
        return torch.from_numpy(self._native.prefill(prompt, n_merged))

    def cache(self, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values in the layout of KVCache, (n_layer, n_head, length, head_dim)."""
        keys, values = unpack_cache(self._keys, self._values, 0, self.config.head_dim)
        return keys[:, :, :length], values[:, :, :length]


def pack(config: GPTConfig, dtype: str) -> Packed:
    return pack_network(config, gpt_tensors(config), dtype, what="the network under test")


def make_prompt(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 118, length).astype(np.int32)


def run_torch(
    config: GPTConfig, prompt: np.ndarray, n_merged: int = 0, tensors: dict[str, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden state, keys and values by the network in plain torch."""
    model = GPT(config).requires_grad_(False).eval()
    model.load_state_dict(tensors or gpt_tensors(config))
    cache = KVCache(config, device=torch.device("cpu"), dtype=torch.float32)
    hidden = model(torch.from_numpy(prompt.astype(np.int64))[None], cache, n_merged)[0, 0]
    return hidden, cache.keys[:, 0, :, : cache.length], cache.values[:, 0, :, : cache.length]


def check(prompts: Prompts, prompt: np.ndarray, n_merged: int, expected: tuple[Tensor, ...], tolerance: float) -> None:
    actual = prompts.prefill(prompt, n_merged), *prompts.cache(len(prompt) - n_merged)
    for a, e in zip(actual, expected, strict=True):
        assert a.isfinite().all()
        assert rms_error(a.float(), e) < tolerance


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("config", [NARROW, CONFIG, WIDE], ids=["32", "16", "64"])
def test_hidden_states_and_cache_are_those_of_torch(config: GPTConfig, isa: str) -> None:
    prompts = Prompts(pack(config, "float32"), config, isa=isa)
    for length in [n for n in LENGTHS if n <= config.block_size]:
        prompt = make_prompt(length, length)
        check(prompts, prompt, 0, run_torch(config, prompt), TOLERANCES["float32"])


@pytest.mark.parametrize("length, n_merged", [(2, 1), (40, 20), (60, 17), (259, 129)])
def test_merged_tokens_are_summed(length: int, n_merged: int) -> None:
    prompt = make_prompt(length)
    check(
        Prompts(pack(CONFIG, "float32")), prompt, n_merged, run_torch(CONFIG, prompt, n_merged), TOLERANCES["float32"]
    )


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("config, length", [(CONFIG, 99), (MIDDLE, 301)], ids=["small", "middle"])
def test_narrow_numbers_stay_close(config: GPTConfig, length: int, dtype: str, isa: str) -> None:
    prompts, prompt = Prompts(pack(config, dtype), config, isa=isa), make_prompt(length)
    check(prompts, prompt, 0, run_torch(config, prompt), TOLERANCES[dtype])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("config, length", [(CONFIG, 99), (MIDDLE, 301)], ids=["small", "middle"])
def test_int4_is_close_to_what_its_weights_stand_for(config: GPTConfig, length: int, isa: str) -> None:
    prompts, prompt = Prompts(pack(config, "int4"), config, isa=isa), make_prompt(length)
    expected = run_torch(config, prompt, tensors=packed_tensors("int4", config))
    # Inputs are rounded as in int8.
    check(prompts, prompt, 0, expected, TOLERANCES["int8"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_neither_threads_nor_what_follows_change_a_bit(dtype: str) -> None:
    def run(threads: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        prompts = Prompts(pack(CONFIG, dtype), threads=threads)
        return prompts.prefill(prompt[:length]), *prompts.cache(77)

    prompt = make_prompt(130)
    hidden, keys, values = run(1, 130)
    for threads in (2, 3):
        for actual, expected in zip(run(threads, 130), (hidden, keys, values), strict=True):
            assert torch.equal(actual, expected)
    _, *shorter = run(2, 77)
    assert torch.equal(shorter[0], keys) and torch.equal(shorter[1], values)


def test_a_shorter_prompt_after_a_longer_one_is_as_the_first() -> None:
    prompts, prompt = Prompts(pack(CONFIG, "bfloat16")), make_prompt(33)
    expected = prompts.prefill(prompt)
    prompts.prefill(make_prompt(130, 5))
    assert torch.equal(prompts.prefill(prompt), expected)


@pytest.mark.parametrize(
    "length, n_merged, message", [(131, 0, "1 to 130 positions"), (0, 0, "0 tokens"), (10, 6, "twice 6"), (5, -1, "-1")]
)
def test_a_prompt_that_does_not_fit_is_refused(length: int, n_merged: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts(pack(CONFIG, "float32")).prefill(make_prompt(length), n_merged)


@pytest.mark.parametrize("token", [-1, 123])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(ValueError, match=f"token id {token}"):
        Prompts(pack(CONFIG, "float32")).prefill(np.array([1, token], np.int32))


@pytest.mark.parametrize("config", [NARROW, WIDE], ids=["32", "64"])
def test_decoding_goes_on_from_a_prompt(config: GPTConfig) -> None:
    def run(decoder: Decoder) -> Any:
        return decoder.run([make_job(1, length=27), make_job(2, length=16, n_merged=5)])

    for actual, expected in zip(run(cpu_decoder(config=config)), run(torch_decoder(config)), strict=True):
        np.testing.assert_array_equal(actual, expected)
