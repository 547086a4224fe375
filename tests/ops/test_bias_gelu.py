"""bias_gelu against its reference."""

import pytest
import torch

from barkfast_kernels.bias_gelu import bias_gelu, bias_gelu_reference
from ops.tools import DTYPES, TOLERANCE, poison, randn, rms_error


@pytest.mark.sweep(5)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 64), (257, 3072), (7, 96 * 4), (3, 100)])
def test_matches_reference(shape, dtype, has_bias):
    x = randn(*shape, dtype=dtype, scale=2)
    bias = randn(shape[1], dtype=dtype, seed=1) if has_bias else None
    out, expected = poison(*shape, dtype=dtype), poison(*shape, dtype=torch.float32)
    bias_gelu(x, bias, out)
    bias_gelu_reference(x, bias, expected)
    assert rms_error(out, expected) < TOLERANCE[dtype]


def test_in_place_and_nothing_beyond_the_end():
    buffer = poison(5 * 100 + 300)
    x = buffer[:500].view(5, 100)
    x.copy_(randn(5, 100))
    bias, expected = randn(100, seed=1), torch.empty_like(x)
    bias_gelu_reference(x, bias, expected)
    bias_gelu(x, bias, x)
    assert rms_error(x, expected) < TOLERANCE[torch.float32]
    assert buffer[500:].isnan().all()
