"""CUDA kernels of the decode step of one to eight sequences, for compute capability 9.0; compiled at run time."""

from barkfast_kernels.hopper.head import HeadDraw, why_not_head
from barkfast_kernels.hopper.ops import VECTOR_ROWS, HopperOps, Shape, compile_step, why_not

__all__ = ["VECTOR_ROWS", "HeadDraw", "HopperOps", "Shape", "compile_step", "why_not", "why_not_head"]
