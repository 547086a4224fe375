"""The kernels of one decode step of Bark-large for one sequence, compiled for compute capability 9.0.

Which kernels, with which constants, arguments and blocks, is what the engine launches on tensors without storage.
"""

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

# Sets the paths, and has Triton compile rather than interpret.
from tools import compile_kernels  # isort: skip

import torch
import triton
from torch import Tensor
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
from tools.step_model.cycles import Launch
from tools.step_model.loads import Kernel
from tools.step_model.sass import PARAMETERS, Code, read_cubin

CAPABILITY = (9, 0)
MODEL = "large"
DTYPES = ("bfloat16", "int8")
# The stages that decode token by token, by the names of their vocabularies.
STAGES = {"semantic": "text", "coarse": "coarse"}
# Whose code depends on the stage.
DRAW = ("norm_head", "sample")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_SIZES = {"i32": 4, "fp32": 4, "i64": 8}


@dataclass(frozen=True)
class StepKernel:
    """A compiled kernel of a step.

    Args:
        name: the function's; with the stage where the stage decides over it.
        source: "triton" or "cuda".
    """

    name: str
    source: str
    kernel: Kernel
    launch: Launch


@dataclass(frozen=True)
class CudaLaunch:
    """One launch of a CUDA kernel."""

    name: str
    grid: tuple[int, int, int]
    args: tuple[Any, ...]
    threads: int
    shared_bytes: int


class CudaRecorder:
    """Stands for the program on a device: writes launches down, among Triton's."""

    def __init__(self, launches: list[Any]) -> None:
        self.launches = launches

    def kernel(self, name: str, *, threads: int, shared_bytes: int) -> "CudaRecorder._Kernel":
        """See barkfast_kernels.hopper.ops.Loader."""
        return self._Kernel(self.launches, name, threads, shared_bytes)

    @dataclass(frozen=True)
    class _Kernel:
        launches: list[Any]
        name: str
        threads: int
        shared_bytes: int

        def launch(self, grid: tuple[int, int, int], args: tuple[Any, ...], *, pdl: bool) -> None:
            """See barkfast_kernels.hopper.ops.Launchable."""
            self.launches.append(CudaLaunch(self.name, grid, args, self.threads, self.shared_bytes))


@dataclass(frozen=True)
class Step:
    """The kernels of a step.

    Args:
        kernels: by name; also those that the CUDA program holds and no launch uses.
        launches: stage -> names in the order of launches, of one layer and what follows the last.
    """

    variant: str
    dtype: str
    kernels: dict[str, StepKernel]
    launches: dict[str, tuple[str, ...]]


def compile_step_of(name: str, variant: Variant, dtype: str) -> Step:
    """Every kernel of a step, those that depend on the stage for both.

    Args:
        dtype: one of DTYPES.

    Raises: ProgramError or CalledProcessError if a compiler refuses; RuntimeError if there is none for CUDA.
    """
    kernels: dict[str, StepKernel] = {}
    order: dict[str, tuple[str, ...]] = {}
    for stage in STAGES:
        launches, shapes = record(variant, dtype, stage)
        names = []
        for launch in launches:
            if isinstance(launch, TritonLaunch):
                function = launch.kernel.__name__.strip("_").removesuffix("_kernel")
                names.append(f"{function} {stage}" if function in DRAW else function)
                if names[-1] not in kernels:
                    kernels[names[-1]] = compile_triton(names[-1], launch)
            else:
                names.append(launch.name)
        order[stage] = tuple(names)
        for shape in shapes:
            for made in _cuda_kernels(shape, [launch for launch in launches if isinstance(launch, CudaLaunch)]):
                kernels.setdefault(made.name, made)
    return Step(name, dtype, kernels, order)


def record(variant: Variant, dtype: str, stage: str) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """The launches of a step of one layer, and what the CUDA kernels were made for."""
    _, n_head, n_embd, _ = SIZES[MODEL]
    part = STAGES[stage]
    slices, stop_row = compile_kernels.VOCABULARY[part]
    # One layer launches what all do.
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
def _without_a_device(launches: list[Any]) -> Iterator[list[tuple[Any, ...]]]:
    """Within the block the engine's CUDA kernels are written down, like Triton's; yields their positional arguments."""
    made: list[tuple[Any, ...]] = []

    def operations(*args: Any, **options: Any) -> HopperOps:
        made.append(args)
        return HopperOps(*args, **options | {"program": CudaRecorder(launches)})

    with ExitStack() as stack:
        stack.enter_context(patch.object(step, "HopperOps", operations))
        stack.enter_context(patch.object(step, "why_not", lambda *_: None))
        yield made


def compile_triton(name: str, launch: TritonLaunch) -> StepKernel:
    """One of Triton's."""
    signature, constants, attributes = compile_kernels.describe(launch)
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, "enable_fp_fusion": True}
    target = GPUTarget("cuda", 10 * CAPABILITY[0] + CAPABILITY[1], 32)
    compiled = triton.compile(source, target=target, options=options | {"launch_pdl": True})
    (code,) = read_cubin(compiled.asm["cubin"], TOOLS).values()
    passed = {argument: kind for argument, kind in signature.items() if kind != "constexpr"}
    sizes = {argument: 8 if kind.startswith("*") else _SIZES[kind] for argument, kind in passed.items()}
    offsets = dict(_offsets(sizes))
    pointers = {offset: argument for argument, offset in offsets.items() if signature[argument].startswith("*")}
    numbers = {offset: launch.args[argument] for argument, offset in offsets.items() if signature[argument] == "i32"}
    shape = Launch(math.prod(launch.grid), 32 * launch.num_warps, compiled.metadata.shared)
    return StepKernel(name, "triton", Kernel(code, pointers, numbers), shape)


def _offsets(sizes: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Where arguments stand in the constant bank."""
    at = PARAMETERS
    for name, size in sizes.items():
        at = -(-at // size) * size
        yield name, at
        at += size


def _cuda_kernels(shape: tuple[Any, ...], launches: Sequence[CudaLaunch]) -> Iterator[StepKernel]:
    """All functions of the program, whether the step launches them or not."""
    by_name = {launch.name: launch for launch in launches}
    for name, code in _cuda_code(shape).items():
        launch = by_name.get(name)
        kernel = describe_cuda(code, read_source(), launch.args if launch else ())
        threads, shared = (launch.threads, launch.shared_bytes) if launch else (code.threads, 0)
        grid = launch.grid if launch else (128, 1, 1)
        yield StepKernel(name, "cuda", kernel, Launch(math.prod(grid), threads, shared + code.shared_bytes))


def describe_cuda(code: Code, source: str, args: Sequence[Any] = ()) -> Kernel:
    """A kernel with the names of its parameters from its source, and what it is launched with; a batch is of one."""
    declared = re.search(rf"\b{code.name}\(([^)]*)\)\s*{{", source)
    parameters = [part.strip() for part in declared[1].split(",")] if declared else []
    names = {re.split(r"[\s*]+", parameter)[-1]: parameter for parameter in parameters}
    sizes = {name: 8 if "*" in text or re.search(r"\bu64\b", text) else 4 for name, text in names.items()}
    values = dict(zip(names, args, strict=False)) or {"batch": 1}
    pointers, numbers = {}, {}
    for name, offset in _offsets(sizes):
        value = values.get(name)
        if "*" in names[name]:
            pointers[offset] = name
            if value is None and args:
                numbers |= {offset: 0, offset + 4: 0}
        elif isinstance(value, int) and not isinstance(value, Tensor):
            numbers[offset] = value
    return Kernel(code, pointers, numbers)


@cache
def _cuda_code(shape: tuple[Any, ...]) -> dict[str, Code]:
    if nvrtc_version():
        cubin = compile_step(*shape, CAPABILITY)
    else:
        cubin = compile_with_nvcc(read_source(), _definitions(*shape))
    return read_cubin(cubin, TOOLS)


def _definitions(shape: Shape) -> tuple[str, ...]:
    return shape.definitions


def compile_with_nvcc(source: str, definitions: Sequence[str] = ()) -> bytes:
    """Machine code by the toolkit's compiler.

    Raises: RuntimeError without one; CalledProcessError if it refuses.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise RuntimeError("neither NVRTC (cuda-bindings, nvidia-cuda-nvrtc) nor nvcc is installed")
    architecture = f"-arch=sm_{CAPABILITY[0]}{CAPABILITY[1]}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.cu")
        path.write_text(source, encoding="utf-8")
        command = [nvcc, "-cubin", architecture, "-std=c++17", *definitions, "-o", f"{folder}/cubin", str(path)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return Path(folder, "cubin").read_bytes()


@cache
def nvrtc_version() -> str:
    """Of NVIDIA's run-time compiler, or "" where there is none."""
    try:
        from cuda.bindings import nvrtc

        error, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):
        return ""
    return "" if error else f"{major}.{minor}"


def compilers() -> dict[str, str]:
    """What compiled which source: with its version."""
    if nvrtc_version():
        return {"triton": f"triton {triton.__version__}", "cuda": f"nvrtc {nvrtc_version()}"}
    found = shutil.which("nvcc")
    text = subprocess.run([found, "--version"], capture_output=True, text=True).stdout if found else ""
    release = re.search(r"release ([\d.]+)", text)
    return {"triton": f"triton {triton.__version__}", "cuda": f"nvcc {release[1] if release else 'none'}"}


assert os.environ["TRITON_INTERPRET"] == "0"
