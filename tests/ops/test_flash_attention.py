"""flash_attention and prefill_attention against their references and torch's attention in float32."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from barkfast_kernels.flash_attention import (
    flash_attention,
    flash_attention_reference,
    prefill_attention,
    prefill_attention_reference,
)
from ops.tools import DTYPES, TOLERANCE, poison, randn, rms_error, row_list


def heads(qkv, n_head):
    return qkv.float().view(len(qkv), 3, n_head, -1).permute(1, 2, 0, 3)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "n_head", "head_dim"),
    [(1, 2, 16), (16, 3, 48), (63, 2, 64), (128, 1, 64), (129, 2, 32), (257, 2, 64), (300, 1, 128)],
)
def test_matches_reference_and_torch(T, n_head, head_dim, dtype, causal):
    n_embd = n_head * head_dim
    # Scores of several units, so that a wrong scale or mask shows.
    qkv = randn(T, 3 * n_embd, dtype=dtype, scale=1.5)
    out, expected = poison(T, n_embd, dtype=dtype), poison(T, n_embd)
    flash_attention(qkv, out, n_head=n_head, causal=causal)
    flash_attention_reference(qkv, expected, n_head=n_head, causal=causal)
    torch_out = scaled_dot_product_attention(*heads(qkv, n_head), is_causal=causal)
    assert rms_error(expected, torch_out.transpose(0, 1).reshape(T, n_embd)) < TOLERANCE[torch.float32]
    assert rms_error(out, expected) < TOLERANCE[dtype]


def test_large_scores_do_not_overflow():
    qkv = randn(70, 3 * 64, scale=100)
    out, expected = poison(70, 64), poison(70, 64)
    flash_attention(qkv, out, n_head=1, causal=True)
    flash_attention_reference(qkv, expected, n_head=1, causal=True)
    # A float32 score of 1e5 is exact only to 1e-2.
    assert rms_error(out, expected) < 1e-2


@pytest.mark.parametrize("causal", [False, True])
def test_nothing_beyond_the_sequence_is_read_or_written(causal):
    buffer, out = poison(300, 3 * 32), poison(300, 32)
    buffer[:200] = randn(200, 3 * 32)
    expected = poison(200, 32)
    flash_attention(buffer[:200], out[:200], n_head=2, causal=causal)
    flash_attention_reference(buffer[:200], expected, n_head=2, causal=causal)
    assert rms_error(out[:200], expected) < TOLERANCE[torch.float32]
    assert out[200:].isnan().all()


def test_causal_rows_do_not_see_the_padding():
    qkv = randn(192, 3 * 64)
    other = qkv.clone()
    other[130:] = 1e3
    outs = [poison(192, 64), poison(192, 64)]
    for source, out in zip((qkv, other), outs, strict=True):
        flash_attention(source, out, n_head=2, causal=True)
    assert torch.equal(outs[0][:130], outs[1][:130])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("slot", "length"), [(0, 1), (2, 64), (1, 129), (2, 140), (1, 0), (-1, 140)])
def test_prefill_fills_the_cache(slot, length, dtype):
    T, n_head, head_dim = 140, 2, 48
    qkv = randn(T, 3 * n_head * head_dim, dtype=dtype)
    prompt = row_list(slot, length, 256, 0)
    # One extra slot in front, where slot -1 would be written.
    caches = [[poison(4, n_head, 200, head_dim, dtype=dtype) for _ in range(2)] for _ in range(2)]
    out, expected = poison(T, n_head * head_dim, dtype=dtype), poison(T, n_head * head_dim)
    prefill_attention(qkv, out, *(cache[1:] for cache in caches[0]), prompt, n_head=n_head)
    prefill_attention_reference(qkv, expected, *(cache[1:] for cache in caches[1]), prompt, n_head=n_head)
    assert rms_error(out, expected) < TOLERANCE[dtype]
    for actual, wanted in zip(*caches, strict=True):
        # Copied values are equal, and what is not copied is still poisoned.
        assert torch.equal(actual.nan_to_num(-77), wanted.nan_to_num(-77))
        assert int((~actual.isnan()).sum()) == (length * n_head * head_dim if slot >= 0 else 0)


def test_prefill_stays_inside_the_cache():
    qkv, prompt = randn(70, 3 * 32), row_list(0, 70, 0, 0)
    keys, values = poison(2, 2, 64, 16), poison(2, 2, 64, 16)
    prefill_attention(qkv, poison(70, 32), keys, values, prompt, n_head=2)
    _, key, value = heads(qkv, 2)
    assert torch.equal(keys[0], key[:, :64]) and torch.equal(values[0], value[:, :64])
    assert keys[1].isnan().all() and values[1].isnan().all()
