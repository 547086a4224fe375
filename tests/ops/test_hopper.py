"""The CUDA kernels of a layer against their references: on a GPU, or in an emulator of its threads without one."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from barkfast_kernels.attention_out.reference import attention_out_reference
from barkfast_kernels.decode_attention.reference import combined, decode_attention_reference
from barkfast_kernels.hopper import HopperOps, Shape, why_not
from barkfast_kernels.hopper.ops import read_source
from barkfast_kernels.norm_fc_gelu.reference import norm_fc_gelu_reference
from barkfast_kernels.norm_qkv.reference import norm_qkv_reference
from barkfast_kernels.proj_residual.reference import proj_residual_reference
from barkfast_kernels.slots import FINISHED, POSITION, RUNNING, pack_slot
from barkfast_kernels.variant import VARIANTS
from tools.step_model.cuda import compile_cuda, compiler, tools_folder
from tools.step_model.sass import read_cubin

from .emulator import SHARED_BYTES, Emulator, find_compiler

DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
N_POSITIONS = 1024
# Position of each slot; the third does not run. Both ends of a split, both ends of the cache, and one beyond it.
POSITIONS = (0, 5, 17, 255, 256, 600, 1023, 1024)
ROWS = (3, 1, 0, 7, -1, 2, 5, 6)
IDLE = (-1, 2)
TYPES = [
    (torch.float32, False),
    (torch.bfloat16, False),
    (torch.float16, False),
    (torch.bfloat16, True),
    (torch.float32, True),
]
# Bark's own sizes, and others that the kernels must support: heads of 128 and 32 channels.
SIZES = [(1024, 16), (768, 12), (384, 3), (128, 4)]
SHAPES = [Shape(*size, N_POSITIONS, *kind) for size in SIZES for kind in TYPES]
# Every CUDA variant, with one of these sizes.
SHAPES += [
    Shape(384, 3, N_POSITIONS, torch.bfloat16, False, variant)
    for variant in VARIANTS.values()
    if variant.kernels == "cuda"
]
# Only shapes that fit into a block's shared memory on an H100.
SHAPES = [shape for shape in SHAPES if shape.most_bytes <= SHARED_BYTES]


def name_of(shape: Shape) -> str:
    label = next(name for name, variant in VARIANTS.items() if variant == shape.variant)
    dtype = str(shape.dtype).removeprefix("torch.")
    kind = "-int8" if shape.int8 else "-bounded" if shape.bounded else ""
    return f"{shape.n_embd}-{shape.n_head}-{dtype}{kind}-{label.split()[0]}"


EACH = pytest.mark.parametrize("shape", SHAPES, ids=name_of)


class Setting:
    """Random tensors of one layer, and its operations."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.emulator = shape, None
        if DEVICE.type == "cuda":
            reason = why_not(shape, DEVICE)
            if reason:
                pytest.skip(reason)
        elif find_compiler() is None:
            pytest.skip("no C++ compiler to emulate the kernels with")
        else:
            self.emulator = Emulator(shape)
        self.ops = HopperOps(shape, self.emulator)
        self.generator = torch.Generator(DEVICE).manual_seed(shape.n_embd)
        self.rows = torch.tensor(ROWS, dtype=torch.int32, device=DEVICE)
        status = [FINISHED.value if slot == 2 else RUNNING.value for slot in range(len(POSITIONS))]
        words = [pack_slot(position=p, limit=2000, status=s) for p, s in zip(POSITIONS, status, strict=True)]
        self.slots = torch.stack(words).to(DEVICE)
        self.earlier_slots = self.slots.clone()
        # Most are one position behind, one of them 90.
        behind = torch.tensor([90 if position == 600 else 1 for position in POSITIONS], device=DEVICE)
        self.earlier_slots[:, POSITION.value] = (self.slots[:, POSITION.value] - behind).clamp_min(0)

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A random tensor in the storage dtype, or in `dtype`."""
        return torch.randn(*shape, device=DEVICE, generator=self.generator).to(dtype or self.shape.dtype)

    def floats(self, *shape: int) -> Tensor:
        """A random float32 tensor."""
        return self.random(*shape, dtype=torch.float32)

    def matrix(self, n_out: int, n_in: int, *, bias: bool = True) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Weight, scale, bias."""
        weight = self.floats(n_out, n_in) * n_in**-0.5
        given = self.random(n_out) if bias else None
        if not self.shape.int8:
            return weight.to(self.shape.dtype), None, given
        scale = weight.abs().amax(1) / 127
        return (weight / scale[:, None]).round().to(torch.int8), scale, given

    def caches(self) -> tuple[Tensor, Tensor]:
        """Keys and values."""
        shape = (len(POSITIONS), self.shape.n_head, N_POSITIONS, self.shape.head_dim)
        return self.random(*shape), self.random(*shape)

    def room(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor for results, filled with sevens."""
        return torch.full(shape, 7.0, device=DEVICE).to(dtype)

    def attended(self) -> tuple[Tensor, Tensor]:
        """Tensors for the outputs of attention's splits: partial results and their statistics."""
        shape = (len(ROWS), self.shape.n_head, self.shape.variant.splits)
        return self.room(*shape, self.shape.head_dim), self.room(*shape, 2)

    def arriving(self, *tensors: Tensor) -> AbstractContextManager[None]:
        """Within the block, kernels see NaN in `tensors`, and slots at earlier positions, until they wait."""
        if self.emulator is None:
            return nullcontext()
        earlier = [(tensor, torch.full_like(tensor, math.nan)) for tensor in tensors]
        return self.emulator.changing(*earlier, (self.slots, self.earlier_slots))

    def judge(
        self,
        work: Callable[..., None],
        reference: Callable[..., None],
        *args: Any,
        outputs: tuple[int, ...],
        inputs: tuple[int, ...],
        pdl: bool,
    ) -> None:
        """Compare both on copies of `args[i]` for i in `outputs`; the previous kernel writes those in `inputs`."""
        ours, theirs = (
            [a.clone() if i in outputs else a for i, a in enumerate((*args, self.rows, self.slots))] for _ in range(2)
        )
        with self.arriving(*(ours[i] for i in inputs)):
            work(*ours, pdl=pdl)
        reference(*theirs)
        for i in outputs:
            assert_close(ours[i], theirs[i])


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Equal up to the order of float32 sums; numbers stored in half precision may round the other way."""
    assert torch.isfinite(ours).all()
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 1e-3, torch.float16: 2e-4}[ours.dtype]
    error = (ours.double() - theirs.double()).norm() / theirs.double().norm()
    assert error < tolerance


@pytest.mark.parametrize("pdl", [False, True] if DEVICE.type == "cuda" else [True])
@EACH
def test_every_operation_is_its_reference(shape: Shape, pdl: bool) -> None:
    s = Setting(shape)
    width, n, ops = shape.n_embd, len(ROWS), s.ops
    x = s.floats(len(POSITIONS), width) * 2 + 0.3
    norm = (s.random(width), s.random(width))
    caches = s.caches()

    matrix = s.matrix(3 * width, width)
    args = (x, *norm, *matrix, s.room(n, width), *caches)
    s.judge(ops.norm_qkv, norm_qkv_reference, *args, outputs=(6, 7, 8), inputs=(0,), pdl=pdl)

    matrix = s.matrix(4 * width, width, bias=False)
    args = (x, norm[0], None, *matrix, s.room(n, 4 * width, dtype=shape.dtype))
    s.judge(ops.norm_fc_gelu, norm_fc_gelu_reference, *args, outputs=(6,), inputs=(0,), pdl=pdl)

    args = (x, s.random(n, 4 * width), *s.matrix(width, 4 * width))
    s.judge(ops.proj_residual, proj_residual_reference, *args, outputs=(0,), inputs=(1,), pdl=pdl)

    partial, stats = s.attended()
    decode_attention_reference(s.floats(n, width), *caches, partial, stats, s.rows, s.slots)
    args = (x, partial, stats, *s.matrix(width, width))
    s.judge(ops.attention_out, attention_out_reference, *args, outputs=(0,), inputs=(1, 2), pdl=pdl)


@pytest.mark.parametrize("pdl", [False, True] if DEVICE.type == "cuda" else [True])
@EACH
def test_attention_is_its_reference(shape: Shape, pdl: bool) -> None:
    s = Setting(shape)
    q, (keys, values) = s.floats(len(ROWS), shape.n_embd), s.caches()
    (partial, stats), expected = s.attended(), s.attended()
    decode_attention_reference(q, keys, values, *expected, s.rows, s.slots)
    # Nothing after the token's own position is ever used.
    for slot, position in enumerate(POSITIONS):
        keys[slot, :, position + 1 :] = values[slot, :, position + 1 :] = math.nan
    for row, slot in enumerate(ROWS):
        at = min(POSITIONS[slot], N_POSITIONS - 1)
        s.ops.newest[row] = torch.stack([keys[slot, :, at], values[slot, :, at]]).flatten(1)
    with s.arriving(q, s.ops.newest), newest_arriving(s, keys), newest_arriving(s, values):
        s.ops.decode_attention(q, keys, values, partial, stats, s.rows, s.slots, pdl=pdl)
    for row, slot in enumerate(ROWS):
        if slot in IDLE:
            assert (partial[row] == 7).all() and (stats[row] == 7).all()
        else:
            assert_close(combined(partial[row], stats[row]), combined(expected[0][row], expected[1][row]))


def newest_arriving(s: Setting, cache: Tensor) -> AbstractContextManager[None]:
    """Within the block, the cache is NaN from each slot's earlier position on, until the wait."""
    if s.emulator is None:
        return nullcontext()
    earlier = cache.clone()
    for slot, position in enumerate(s.earlier_slots[:, POSITION.value].tolist()):
        earlier[slot, :, position:] = math.nan
    return s.emulator.changing((cache, earlier))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.n_embd in (1024, 128)], ids=name_of)
def test_a_row_alone_is_the_same_bits(shape: Shape) -> None:
    s = Setting(shape)
    width = shape.n_embd
    x, (keys, values), gain = s.floats(len(POSITIONS), width), s.caches(), s.random(width)
    qkv, out, fc, proj = (
        s.matrix(n, m) for n, m in ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width))
    )

    def layer(rows: Tensor) -> list[Tensor]:
        changed, k, v, (partial, stats) = x.clone(), keys.clone(), values.clone(), s.attended()
        q, hidden = s.room(len(ROWS), width), s.room(len(ROWS), 4 * width, dtype=shape.dtype)
        s.ops.norm_qkv(changed, gain, None, *qkv, q, k, v, rows, s.slots, pdl=True)
        s.ops.decode_attention(q, k, v, partial, stats, rows, s.slots, pdl=True)
        s.ops.attention_out(changed, partial, stats, *out, rows, s.slots, pdl=True)
        s.ops.norm_fc_gelu(changed, gain, None, *fc, hidden, rows, s.slots, pdl=True)
        s.ops.proj_residual(changed, hidden, *proj, rows, s.slots, pdl=True)
        return [changed, k, v]

    together = layer(s.rows)
    assert torch.equal(together[0][2], x[2])
    for slot in (0, 3, 6):
        alone = layer(torch.tensor([slot], dtype=torch.int32, device=DEVICE))
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one[slot], many[slot])


SMALL = Shape(128, 4, N_POSITIONS, torch.float32, False)


# Rows and their tolerances. Where the first four channels hold most of the variance, a number much larger than the
# variance is subtracted (up to 256 times at 1024 channels), which loses precision.
UNEVEN = {
    "a mean of a thousand deviations": (lambda x: x + 1000, 2e-6),
    "all the same": (lambda x: torch.full_like(x, 3.3), 2e-6),
    "all zero": (torch.zeros_like, 2e-6),
    "an outlier elsewhere": (lambda x: torch.where(torch.arange(x.shape[-1], device=x.device) == 77, 200.0, x), 2e-6),
    "outliers in front": (lambda x: torch.where(torch.arange(x.shape[-1], device=x.device) < 4, 200.0, x), 3e-5),
}


@pytest.mark.parametrize("kind", UNEVEN)
def test_the_norm_of_uneven_rows(kind: str) -> None:
    s = Setting(SMALL)
    change, tolerance = UNEVEN[kind]
    x = change(s.floats(len(POSITIONS), SMALL.n_embd))
    weight, scale, bias = s.matrix(4 * SMALL.n_embd, SMALL.n_embd)
    norm = s.random(SMALL.n_embd), s.random(SMALL.n_embd)
    ours = s.room(len(ROWS), 4 * SMALL.n_embd)
    s.ops.norm_fc_gelu(x, *norm, weight, scale, bias, ours, s.rows, s.slots, pdl=True)
    # In float64: far from zero the mean in float32 is not exact enough for a reference.
    exact = F.layer_norm(x.double(), (SMALL.n_embd,), *(t.double() for t in norm), 1e-5)
    exact = F.gelu(F.linear(exact, weight.double(), bias.double()))
    for row, slot in enumerate(ROWS):
        if slot not in IDLE:
            assert (ours[row] - exact[slot]).norm() < tolerance * exact[slot].norm()


@pytest.mark.skipif(DEVICE.type == "cuda", reason="only the emulator sees what is brought into the L2 cache")
@pytest.mark.parametrize("n_bytes", [0, 8, 16, 4112, 3_000_000])
def test_a_later_kernels_weights_are_asked_for_once(n_bytes: int) -> None:
    s = Setting(SMALL)
    width, n = SMALL.n_embd, len(ROWS)
    # Aligned to 16 bytes, as every allocation on a device is.
    ahead = torch.empty(n_bytes + 16, dtype=torch.int8)
    ahead = ahead[-ahead.data_ptr() % 16 :][:n_bytes]
    x, (keys, values), (partial, stats) = s.floats(len(POSITIONS), width), s.caches(), s.attended()
    norm, hidden, q = s.random(width), s.room(n, 4 * width), s.floats(n, width)
    where = (s.rows, s.slots)
    launches = [
        (s.ops.norm_qkv, (x, norm, None, *s.matrix(3 * width, width), q, keys, values, *where)),
        (s.ops.decode_attention, (q, keys, values, partial, stats, *where)),
        (s.ops.attention_out, (x, partial, stats, *s.matrix(width, width), *where)),
        (s.ops.norm_fc_gelu, (x, norm, None, *s.matrix(4 * width, width), hidden, *where)),
        (s.ops.proj_residual, (x, hidden, *s.matrix(width, 4 * width), *where)),
    ]
    assert s.emulator is not None
    s.emulator.take_prefetched()
    for operation, args in launches:
        operation(*args, pdl=True, ahead=ahead)
        whole = n_bytes // 16 * 16
        expected = (ahead.data_ptr(), ahead.data_ptr() + whole, whole) if whole else (0, 0, 0)
        assert s.emulator.take_prefetched() == expected
        operation(*args, pdl=False, ahead=ahead)
        assert s.emulator.take_prefetched() == (0, 0, 0)


LARGE = [shape for shape in SHAPES if shape.n_embd == 1024]


@pytest.mark.parametrize("shape", [*LARGE, replace(LARGE[1], bounded=True)], ids=name_of)
@pytest.mark.skipif(DEVICE.type == "cuda", reason="compiled where it is used")
def test_the_real_compiler_keeps_all_in_registers(shape: Shape) -> None:
    if not compiler():
        pytest.skip("neither NVRTC's bindings nor nvcc is installed: the CUDA source was not compiled")
    codes = read_cubin(compile_cuda(read_source(), shape.definitions), tools_folder())
    assert len(codes) == read_source().count('extern "C" __global__') == 6
    assert not {name for name, code in codes.items() if code.stack_bytes or code.local_bytes}
    assert codes["head_draw"].registers <= (64 if shape.dtype.itemsize == 2 else 80)
    # Waits end in an error only in shapes for debugging (`bounded`).
    assert any("BPT.TRAP" in str(i) for i in codes["norm_qkv"].instructions) == shape.bounded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 320, "n_head": 5}, "n_embd is 320"),
        ({"n_embd": 1280}, "n_embd is 1280"),
        ({"n_head": 64}, "heads of 16"),
    ],
)
def test_what_they_do_not_serve(changes: dict[str, int], message: str) -> None:
    shape = Shape(**{"n_embd": 1024, "n_head": 16, "block_size": 1024, "dtype": torch.float32, "int8": False} | changes)
    assert message in (shape.why_not() or "")
