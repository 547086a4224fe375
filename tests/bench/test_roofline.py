"""Bytes and operations by arithmetic, compared with the networks themselves."""

from typing import Any

import pytest
import torch
from torch import nn

from barkfast.bench.roofline import (
    codec_flop,
    decoder_step_bytes,
    fine_flop,
    kernel_bytes,
    pass_flop,
    step_bytes,
)
from barkfast.config import CodecConfig, FineConfig, GPTConfig
from barkfast.models.encodec import EncodecDecoder
from barkfast.models.gpt import GPT
from barkfast.runtime.torch_ import TorchDecoder
from bench.networks import CONFIG, build_decoder, needs_native

LARGE = GPTConfig(24, 16, 1024, 129_600, 10_048, bias=False)
LARGE_FINE = FineConfig(24, 16, 1024, 1056, 1056, bias=False)


def test_step_bytes_are_those_of_the_arithmetic():
    # 24 layers of 12 * 1024^2 weights and two norms of 1024, the last norm; 2 bytes each
    layers = 24 * (12 * 1_048_576 + 2 * 1024) * 2 + 1024 * 2
    parts = step_bytes(LARGE, dtype="bfloat16", context=510, candidates=10_001)
    assert (parts.layers, parts.head, parts.kv) == (layers, 10_001 * 1024 * 2, 510 * 98_304)
    assert round(parts.total / 1e6) == 675
    coarse = step_bytes(LARGE, dtype="bfloat16", context=917, candidates=1024)
    assert round(coarse.total / 1e6) == 696
    # int8 matrices, nine rows of 1024 float32 scales per layer; all else as before
    eight = step_bytes(LARGE, dtype="int8", context=917, candidates=1024)
    assert eight.layers == 24 * (12 * 1_048_576 + 9 * 1024 * 4 + 2 * 1024 * 2) + 1024 * 2
    assert (eight.head, eight.kv) == (coarse.head, coarse.kv)
    assert step_bytes(LARGE, dtype="float32", context=1, candidates=1).layers == 2 * layers
    # a batch reads weights once and every sequence's keys and values
    many = step_bytes(LARGE, dtype="bfloat16", context=917, candidates=1024, batch=64)
    assert (many.layers, many.head, many.kv) == (coarse.layers, coarse.head, 64 * coarse.kv)


def test_biases_are_read_too():
    small = GPTConfig(1, 1, 2, 10, 10, bias=True)
    # weights 12 * 4, two norms' weights and biases 8, biases (3 + 1 + 4 + 1) * 2; the last norm 4
    assert step_bytes(small, dtype="float16", context=0, candidates=0).layers == (48 + 8 + 18 + 4) * 2


def test_kernel_bytes_add_up_to_the_steps():
    for dtype in ("bfloat16", "int8"):
        shape = {"dtype": dtype, "context": 917, "candidates": 1024}
        parts = kernel_bytes(LARGE, **shape)
        vector = ("norm_qkv", "decode_attention", "attention_out", "norm_fc_gelu", "proj_residual", "norm_head")
        matrix = ("linear_qkv", "decode_attention", "linear_gelu", "linear_partial", "linear_head")
        total = step_bytes(LARGE, **shape).total
        for names in (vector, matrix):
            assert sum(parts[name] for name in names) == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_torch_decoder_reads_its_parameters(bias: bool, dtype: str):
    config = GPTConfig(2, 2, 32, 50, 40, block_size=64, bias=bias)
    model = GPT(config).to(getattr(torch, dtype))
    parts = decoder_step_bytes(TorchDecoder(model), context=9, candidates=7, batch=3)
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    assert parts.layers == sum(n for name, n in sizes.items() if name.startswith(("transformer.h", "transformer.ln")))
    number = 4 if dtype == "float32" else 2
    assert (parts.head, parts.kv) == (7 * 32 * number, 3 * 2 * 2 * 32 * 9 * number)


@needs_native
def test_a_cpu_decoder_reads_its_packed_weights():
    sizes = {}
    for dtype in ("float32", "bfloat16", "int8", "int4"):
        decoder = build_decoder("cpu", dtype)
        assert decoder.weight_dtype == dtype
        parts = decoder_step_bytes(decoder, context=10, candidates=decoder.config.output_vocab_size)
        packed = decoder.packed
        tables = sum(piece.size for piece in packed.pieces if piece.kind == "table")
        assert parts.layers + parts.head == sum(piece.size for piece in packed.pieces) - tables
        # With quantized weights the cache has a byte per number, and a float32 scale per head and position.
        config = decoder.config
        number = {"float32": 4, "bfloat16": 2}.get(dtype, 1 + 4 / config.head_dim)
        assert parts.kv == 10 * 2 * config.n_layer * config.n_embd * number
        half = decoder_step_bytes(decoder, context=10, candidates=decoder.config.output_vocab_size // 2)
        assert 0.4 * parts.head < half.head < 0.7 * parts.head
        sizes[dtype] = parts.total
    assert sizes["float32"] > sizes["bfloat16"] > sizes["int8"] > sizes["int4"]


@pytest.mark.parametrize("int8", [False, True])
def test_a_cuda_decoder_reads_by_the_arithmetic(int8: bool):
    decoder = build_decoder("cuda", "int8" if int8 else "float32")
    assert decoder.weight_dtype == ("int8" if int8 else "float32")
    parts = decoder_step_bytes(decoder, context=10, candidates=5)
    expected = step_bytes(CONFIG, dtype=decoder.weight_dtype, context=10, candidates=5, storage="float32")
    assert parts == expected
    # Layers consist of matrices, with scales and biases, and of norms.
    matrices = [m for layer in decoder._network.layers for m in (layer.qkv, layer.out, layer.fc, layer.proj)]
    tensors = [t for m in matrices for t in (m.weight, m.scale, m.bias) if t is not None]
    norms = 2 * (2 * CONFIG.n_layer + 1) * CONFIG.n_embd * 4
    assert parts.layers == sum(t.numel() * t.element_size() for t in tensors) + norms


def test_operations_are_those_of_the_arithmetic():
    causal = 24 * (2 * 12 * 1024**2 * 885 + 2 * 885**2 * 1024)
    assert pass_flop(LARGE, 885) == causal
    assert causal == pytest.approx(0.573e12, rel=0.01)
    one = 24 * (2 * 12 * 1024**2 * 1024 + 4 * 1024**3) + 2 * 1024 * 1024 * 1056
    assert fine_flop(LARGE_FINE, 1024, 2) == 6 * one
    assert 6 * one == pytest.approx(4.33e12, rel=0.01)


def count_codec_operations(model: EncodecDecoder, codes: torch.Tensor) -> int:
    """Multiplications and additions of all modules, counted from their inputs and outputs."""
    counts: list[int] = []

    def count(module: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        x = inputs[0]
        if isinstance(module, nn.Conv1d):
            counts.append(2 * module.weight.numel() * output.shape[-1])
        elif isinstance(module, nn.ConvTranspose1d):
            counts.append(2 * module.weight.numel() * x.shape[-1])
        elif isinstance(module, nn.LSTM):
            weights = [p for name, p in module.named_parameters() if name.startswith("weight")]
            counts.append(2 * sum(p.numel() for p in weights) * x.shape[0])

    for module in model.modules():
        module.register_forward_hook(count)
    model(codes)
    return sum(counts)


@pytest.mark.parametrize(
    "config",
    [
        CodecConfig(n_codebooks=2, n_filters=4),
        CodecConfig(
            n_codebooks=2, n_filters=4, ratios=(3, 2), n_residual_layers=2, conv_shortcut=False, n_lstm_layers=1
        ),
    ],
)
def test_operations_of_the_codec_are_those_of_its_modules(config: CodecConfig):
    codes = torch.zeros(1, 2, 9, dtype=torch.int64)
    with torch.no_grad():
        assert codec_flop(config, 9) == count_codec_operations(EncodecDecoder(config), codes)
