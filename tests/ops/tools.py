"""Helpers of the kernel tests: the device, inputs, poisoned outputs, and tolerances."""

import torch
from torch import Tensor

from barkfast_kernels.launch import INTERPRETED
from barkfast_kernels.slots import pack_slot

# bf16 arithmetic is wrong in the interpreter, so it waits for a GPU.
DTYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.float32, torch.float16, torch.bfloat16]

# Largest RMS error relative to the RMS of the reference. Sums are float32 in another order; outputs in half
# precision are rounded once (2**-11 and 2**-8 of their size).
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def device() -> torch.device:
    """The GPU where kernels are compiled, the CPU where they are interpreted."""
    return torch.device("cpu" if INTERPRETED else "cuda")


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers, the same everywhere for the same seed."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(device(), dtype)


def poison(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A buffer of NaN, which shows what a kernel did not write."""
    return torch.full(shape, float("nan"), device=device(), dtype=dtype)


def slot_table(*rows: Tensor) -> Tensor:
    """(n_slots, WORDS) int32 from rows made by `pack_slot`."""
    return torch.stack(rows).to(device())


def running_slots(positions: list[int]) -> Tensor:
    """A slot per position, all running."""
    return slot_table(*(pack_slot(position=position, limit=1000) for position in positions))


def row_list(*slots: int) -> Tensor:
    """(batch,) int32."""
    return torch.tensor(slots, dtype=torch.int32, device=device())


def rms_error(actual: Tensor, expected: Tensor) -> float:
    """RMS of the difference over the RMS of `expected`; infinite if the result is NaN."""
    difference = (actual.double() - expected.double()).square().mean().sqrt()
    error = float(difference / expected.double().square().mean().sqrt().clamp_min(1e-30))
    return error if error == error else float("inf")


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 weight, float32 scale per row), for tests alone."""
    scale = weight.float().abs().amax(1) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale
