"""The kernels of one decode step of Bark-large for one sequence, compiled for compute capability 9.0.

The kernels, their constants, arguments and grids are recorded from the engine, run on tensors without storage.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any
from unittest.mock import patch

# Sets the paths, and makes Triton compile rather than interpret.
import compile_kernels  # isort: skip

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from barkfast.config import GPTConfig
from barkfast.runtime.cuda import step
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.network import load_network
from barkfast.runtime.cuda.state import State
from barkfast.runtime.cuda.step import DecodeStep, Vocabulary
from barkfast.weights.random import SIZES, VOCABULARIES
from barkfast.weights.shapes import gpt_shapes
from barkfast_kernels.hopper import HopperOps, Shape, compile_step
from barkfast_kernels.hopper.ops import read_source
from barkfast_kernels.launch import Launch as TritonLaunch
from barkfast_kernels.launch import recording
from barkfast_kernels.variant import Variant
from tools.step_model.cuda import (
    CAPABILITY,
    CudaLaunch,
    CudaRecorder,
    compile_cuda,
    compiler,
    describe_cuda,
    nvrtc_version,
    offsets,
    tools_folder,
)
from tools.step_model.cycles import Launch, Timing, time_kernel
from tools.step_model.loads import Kernel
from tools.step_model.sass import Code, read_cubin

MODEL = "large"
DTYPES = ("bfloat16", "int8")
# The stages that decode token by token, by the names of their vocabularies.
STAGES = {"semantic": "text", "coarse": "coarse"}
# Kernels whose code depends on the stage.
DRAW = ("norm_head", "sample", "head_draw")
_SIZES = {"i32": 4, "fp32": 4, "i64": 8}


@dataclass(frozen=True)
class StepKernel:
    """A compiled kernel of a step.

    Args:
        name: the function's, followed by the stage if its code depends on that.
        source: "triton" or "cuda".
    """

    name: str
    source: str
    kernel: Kernel
    launch: Launch

    @cached_property
    def timing(self) -> Timing:
        """The modelled timing."""
        return time_kernel(self.kernel, self.launch)


@dataclass(frozen=True)
class Step:
    """The kernels of a step.

    Args:
        kernels: by name, including those of the CUDA program that no launch uses.
        launches: stage -> names in launch order, of one layer and of the kernels after the last layer.
    """

    variant: str
    dtype: str
    kernels: dict[str, StepKernel]
    launches: dict[str, tuple[str, ...]]


def compile_step_of(name: str, variant: Variant, dtype: str) -> Step:
    """Compile every kernel of a step; those that depend on the stage for both stages.

    Args:
        dtype: one of DTYPES.

    Raises: ProgramError or CalledProcessError if a compiler fails; RuntimeError without a CUDA compiler.
    """
    kernels: dict[str, StepKernel] = {}
    order: dict[str, tuple[str, ...]] = {}
    for stage in STAGES:
        launches, shapes = record(variant, dtype, stage)
        names = []
        for launch in launches:
            if isinstance(launch, TritonLaunch):
                function = launch.kernel.__name__.strip("_").removesuffix("_kernel")
                names.append(_name(function, stage))
                if names[-1] not in kernels:
                    kernels[names[-1]] = compile_triton(names[-1], launch)
            else:
                names.append(_name(launch.name, stage))
        order[stage] = tuple(names)
        cuda = [launch for launch in launches if isinstance(launch, CudaLaunch)]
        for shape in shapes:
            for made in _cuda_kernels(shape, cuda, stage):
                kernels.setdefault(made.name, made)
    return Step(name, dtype, kernels, order)


def _name(function: str, stage: str) -> str:
    return f"{function} {stage}" if function in DRAW else function


def record(variant: Variant, dtype: str, stage: str) -> tuple[list[Any], list[Shape]]:
    """Record the launches of a step of one layer, and the shapes that CUDA kernels were made for."""
    _, n_head, n_embd, _ = SIZES[MODEL]
    part = STAGES[stage]
    slices, stop_row = compile_kernels.VOCABULARY[part]
    # All layers launch the same kernels.
    config = GPTConfig(1, n_head, n_embd, *VOCABULARIES[part], bias=False)
    meta, storage = compile_kernels.META, compile_kernels.DTYPES[dtype]
    tensors = {key: torch.empty(shape, device=meta) for key, shape in gpt_shapes(config).items()}
    network = load_network(config, tensors, device=meta, dtype=storage, int8=dtype == "int8")
    state = State.allocate(config, 1, meta, storage)
    with recording() as launches, _without_a_device(launches) as shapes, torch.inference_mode():
        step_of_one = DecodeStep(network, state, stage=0, options=Options(pdl=True, variant=variant))
        rows = torch.empty(1, dtype=torch.int32, device=meta)
        step_of_one.run(rows, Vocabulary.allocate(slices, stop_row, 1, meta), filtered=False)
    return list(launches), shapes


@contextmanager
def _without_a_device(launches: list[Any]) -> Iterator[list[Shape]]:
    """Within the block, record launches of the engine's CUDA kernels, like Triton's; yield the kernels' shapes."""
    made: list[Shape] = []

    def operations(shape: Shape, **options: Any) -> HopperOps:
        made.append(shape)
        return HopperOps(shape, **options | {"program": CudaRecorder(launches)})

    with ExitStack() as stack:
        stack.enter_context(patch.object(step, "HopperOps", operations))
        stack.enter_context(patch.object(step, "why_not", lambda *_: None))
        yield made


def compile_triton(name: str, launch: TritonLaunch) -> StepKernel:
    """Compile one Triton kernel."""
    signature, constants, attributes = compile_kernels.describe(launch)
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, "enable_fp_fusion": True}
    target = GPUTarget("cuda", 10 * CAPABILITY[0] + CAPABILITY[1], 32)
    compiled = triton.compile(source, target=target, options=options | {"launch_pdl": True})
    (code,) = read_cubin(compiled.asm["cubin"], tools_folder()).values()
    passed = {argument: kind for argument, kind in signature.items() if kind != "constexpr"}
    sizes = {argument: 8 if kind.startswith("*") else _SIZES[kind] for argument, kind in passed.items()}
    places = dict(offsets(sizes))
    pointers = {offset: argument for argument, offset in places.items() if signature[argument].startswith("*")}
    numbers = {offset: launch.args[argument] for argument, offset in places.items() if signature[argument] == "i32"}
    shape = Launch(math.prod(launch.grid), 32 * launch.num_warps, compiled.metadata.shared)
    return StepKernel(name, "triton", Kernel(code, pointers, numbers), shape)


def _cuda_kernels(shape: Shape, launches: Sequence[CudaLaunch], stage: str) -> Iterator[StepKernel]:
    """All kernels of the CUDA program, whether the step launches them or not."""
    by_name = {launch.name: launch for launch in launches}
    for name, code in _cuda_code(shape).items():
        launch = by_name.get(name)
        kernel = describe_cuda(code, read_source(), launch.args if launch else ())
        threads, shared = (launch.threads, launch.shared_bytes) if launch else (code.threads, 0)
        grid = launch.grid if launch else (128, 1, 1)
        yield StepKernel(
            _name(name, stage), "cuda", kernel, Launch(math.prod(grid), threads, shared + code.shared_bytes)
        )


@cache
def _cuda_code(shape: Shape) -> dict[str, Code]:
    cubin = compile_step(shape, CAPABILITY) if nvrtc_version() else compile_cuda(read_source(), shape.definitions)
    return read_cubin(cubin, tools_folder())


def compilers() -> dict[str, str]:
    """Source language -> its compiler with version."""
    return {"triton": f"triton {triton.__version__}", "cuda": compiler()}
