"""Small decoders of every engine, to be measured."""

from functools import cache
from typing import Any

import pytest
import torch

from barkfast.config import GPTConfig
from barkfast.native import load_native, native_status
from barkfast.runtime import select
from barkfast.runtime.decoder import Decoder
from barkfast.weights.random import make_gpt

needs_native = pytest.mark.skipif(load_native() is None, reason=f"no native module: {native_status()[1]}")

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=64, input_vocab_size=120, output_vocab_size=96, block_size=64, bias=True)


@cache
def gpt_tensors() -> dict[str, torch.Tensor]:
    return make_gpt(CONFIG, torch.Generator().manual_seed(1))


def build_decoder(engine: str, dtype: str, **settings: Any) -> Decoder:
    """A decoder on the CPU; of the cuda engine on a GPU, or in Triton's interpreter where there is none."""
    if engine != "cuda":
        return select.build_decoder("coarse", CONFIG, gpt_tensors(), select.Placement(engine, "cpu", "cpu", dtype))
    pytest.importorskip("triton")
    from barkfast.runtime.cuda.decoder import CudaDecoder
    from barkfast_kernels.launch import INTERPRETED

    device = torch.device("cpu" if INTERPRETED else "cuda:0")
    storage = torch.float32 if dtype == "int8" else select.torch_dtype(dtype)
    return CudaDecoder(
        CONFIG, gpt_tensors(), stage="coarse", device=device, dtype=storage, int8=dtype == "int8", **settings
    )
