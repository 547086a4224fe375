"""Small packed networks for tests of the CPU engine."""

from functools import cache
from typing import Any

import pytest
import torch

from barkfast.config import GPTConfig
from barkfast.native import load_native, native_status
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.cpu.packing import Packed, pack_network, unpack_matrix
from contract.networks import POISON, gpt_tensors

needs_native = pytest.mark.skipif(load_native() is None, reason=f"no native module: {native_status()[1]}")

# Only n_embd and the head size are multiples of 16. Most jobs draw tokens below 100; the vocabulary goes on to 120.
CONFIG = GPTConfig(2, 3, 48, input_vocab_size=123, output_vocab_size=120, block_size=130, bias=True)
DTYPES = ("float32", "bfloat16", "int8", "int4")


def isas() -> list[str]:
    """The instruction-set levels that can run here."""
    native = load_native()
    return native.supported_isas() if native is not None else []


@cache
def make_pool(threads: int = 2) -> Any:
    """A pool of native threads, shared by the tests."""
    native = load_native()
    assert native is not None
    return native.Pool(threads)


@cache
def pack(dtype: str = "float32", config: GPTConfig = CONFIG) -> Packed:
    """The network of gpt_tensors, packed; token POISON's embedding is NaN."""
    packed = pack_network(config, gpt_tensors(config), dtype, what="the network under test")
    table = next(piece for piece in packed.pieces if piece.name == "transformer.wte.weight")
    row = table.size // table.rows
    # Bytes of 0xFF are NaN in bfloat16 and in float32.
    packed.block[table.offset + POISON * row : table.offset + (POISON + 1) * row] = 0xFF
    return packed


def packed_tensors(dtype: str, config: GPTConfig = CONFIG) -> dict[str, torch.Tensor]:
    """The packed network's weights as float32, rounded as packing rounds them."""
    packed = pack_network(config, gpt_tensors(config), dtype, what="the network under test")
    tensors = dict(gpt_tensors(config))
    for name, kind, format, *_ in packed.entries:
        if kind == "matrix":
            tensors[name] = unpack_matrix(packed, name)
        elif kind == "table" and format == 1:
            tensors[name] = tensors[name].bfloat16().float()
    return tensors


def cpu_decoder(
    dtype: str = "float32",
    *,
    n_slots: int = 1,
    config: GPTConfig = CONFIG,
    threads: int = 2,
    isa: str = "",
    stage: str = "coarse",
) -> CpuDecoder:
    """The decoder under test."""
    packed = pack(dtype, config)
    return CpuDecoder(config, packed, stage=stage, pool=make_pool(threads), n_slots=n_slots, dtype=dtype, isa=isa)
