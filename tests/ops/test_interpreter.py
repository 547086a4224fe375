"""The interpreter of the kernel tests, which prepares triton.language once per launch."""

import numpy as np
import pytest
import torch

from barkfast_kernels.launch import INTERPRETED
from ops.tools import poison

triton = pytest.importorskip("triton", reason="triton is not installed (the extra `triton`)")
tl = pytest.importorskip("triton.language")
pytestmark = pytest.mark.skipif(not INTERPRETED, reason="kernels are compiled for the GPU")


@triton.jit
def _double(x):
    return x + x


@triton.jit
def _sum_kernel(x, out, TIMES: tl.constexpr):
    tl.static_assert(TIMES < 9)
    values = tl.load(x + tl.arange(0, 8))
    for _ in tl.static_range(TIMES):
        values = _double(values)
    tl.store(out, tl.sum(values))


def run(x: torch.Tensor, times: int = 1) -> float:
    out = poison(1)
    _sum_kernel[(1,)](x, out, TIMES=times)
    return out.item()


def test_the_language_is_put_back_after_a_launch_and_after_an_error() -> None:
    from triton.runtime.errors import InterpreterError

    def language() -> list[object]:
        return [tl.load, tl.range, tl.static_range, tl.math.exp, tl.tensor.__add__, tl.dtype.to_ir]

    x = torch.arange(8.0)
    run(x)
    before = language()
    for _ in range(2):
        assert run(x) == 56
        assert language() == before
        with pytest.raises(InterpreterError):
            run(x, times=9)
        assert language() == before


def test_calls_within_a_kernel_prepare_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    prepared: list[object] = []
    prepare = interpreter._patch_builtin
    monkeypatch.setattr(interpreter, "_patch_builtin", lambda *args: (prepared.append(args[0]), prepare(*args)))
    counts = []
    for times in (1, 5):
        prepared.clear()
        assert run(torch.arange(8.0), times) == 28 * 2**times
        counts.append(len(prepared))
    assert counts[0] == counts[1] > 0


def test_every_dtype_is_numpys() -> None:
    from triton.runtime import interpreter

    pairs = {tl.float32: np.float32, tl.float16: np.float16, tl.int64: np.int64, tl.int1: bool, tl.uint8: np.uint8}
    for dtype, expected in pairs.items():
        for _ in range(2):
            assert interpreter._get_np_dtype(dtype) == expected
            assert interpreter._get_np_dtype(tl.block_type(dtype, [4])) == expected
            assert interpreter._get_np_dtype(tl.pointer_type(dtype)) == np.uint64
            assert interpreter._get_np_dtype(tl.block_type(tl.pointer_type(dtype), [4])) == np.uint64
