"""Compile every Triton kernel that the GPU engine launches, for several GPUs: registers, spills, shared memory.

There is no list of kernels and their constants: the engine's own code runs on tensors without storage while its
launches are recorded. Needs Triton (with its ptxas and cuobjdump), no GPU.

    python kernels/compile_kernels.py [--sm 90 80 120] [--model small large] [--dtype ...] [--json FILE]

Variants with biases, which Suno's checkpoints do not have, are compiled for the first architecture only.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
os.environ["TRITON_INTERPRET"] = "0"

import torch  # noqa: E402
import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from barkfast.config import FineConfig, GPTConfig  # noqa: E402
from barkfast.runtime.cuda.device import Options  # noqa: E402
from barkfast.runtime.cuda.network import load_network  # noqa: E402
from barkfast.runtime.cuda.prefill import Prefill  # noqa: E402
from barkfast.runtime.cuda.refiner import FinePass  # noqa: E402
from barkfast.runtime.cuda.state import State  # noqa: E402
from barkfast.runtime.cuda.step import DecodeStep, Vocabulary  # noqa: E402
from barkfast.weights.random import SIZES, VOCABULARIES  # noqa: E402
from barkfast.weights.shapes import gpt_shapes  # noqa: E402
from barkfast_kernels.launch import Launch, recording  # noqa: E402

META = torch.device("meta")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}
TYPE_NAMES = {
    **{torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"},
    **{torch.int8: "i8", torch.int32: "i32", torch.int64: "i64"},
}
# Slices and stop token of Suno's semantic and coarse stages.
VOCABULARY = {"text": (((0, 10_000),), 10_000), "coarse": (((10_000, 11_024), (11_024, 12_048)), -1)}


@dataclass(frozen=True)
class Resources:
    """Resources of one compiled kernel, and counts of instructions in its code."""

    kernel: str
    sm: int
    model: str
    dtype: str
    constants: str
    num_warps: int
    pdl: bool
    registers: int
    local_bytes: int
    shared_bytes: int
    wide_loads: int
    wide_loads_before_wait: int
    waits: int
    launches_dependents: int
    cubin_bytes: int


def record(model: str, dtype: str, bias: bool) -> Iterator[Launch]:
    """Record the launches of both GPTs and of the fine network of one size."""
    n_layer, n_head, n_embd, _ = SIZES[model]
    storage, int8 = DTYPES[dtype], dtype == "int8"
    with recording() as launches, torch.inference_mode():
        for part, (slices, stop_row) in VOCABULARY.items():
            # All layers launch the same kernels, so one is enough.
            config = GPTConfig(1, n_head, n_embd, *VOCABULARIES[part], bias=bias)
            network = load_network(config, _meta_tensors(config), device=META, dtype=storage, int8=int8)
            for n_slots, batches in ((8, (1, 8)), (64, (16, 32, 64))):
                state = State.allocate(config, n_slots, META, storage)
                step = DecodeStep(network, state, stage=0, options=Options(pdl=True))
                vocabulary = Vocabulary.allocate(slices, stop_row, n_slots, META)
                for batch in batches:
                    rows = torch.empty(batch, dtype=torch.int32, device=META)
                    for filtered in (False, True):
                        step.run(rows, vocabulary, filtered=filtered)
                prefill = Prefill(network, state)
                prefill.run(257)
                prefill.run(896)
                step.draw(prefill.rows, vocabulary, filtered=False)
        if not int8:
            fine = FineConfig(1, n_head, n_embd, *VOCABULARIES["fine"], bias=bias)
            network = load_network(fine, _meta_tensors(fine), device=META, dtype=storage)
            FinePass(network, fine).run(fine.block_size, 2, 1024)
    yield from launches


def _meta_tensors(config: GPTConfig) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device=META) for key, shape in gpt_shapes(config).items()}


def describe(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """Signature, constants and alignments, as Triton's own launcher would derive them."""
    signature, constants, attributes = {}, dict(launch.constexprs), {}
    for index, (name, parameter) in enumerate(zip(launch.kernel.arg_names, launch.kernel.params, strict=True)):
        if name in launch.constexprs:
            signature[name] = "constexpr"
            continue
        value = launch.args[name]
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPE_NAMES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif parameter.do_not_specialize:
            signature[name] = "i32"
        elif value == 1:
            signature[name], constants[name] = "constexpr", 1
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def unique(models: list[str], dtypes: list[str]) -> tuple[list[tuple[str, str, Launch]], int]:
    """Each distinct compilation once, with the first model and dtype that needs it, and how many have no bias."""
    found: dict[tuple[str, ...], tuple[str, str, Launch]] = {}
    plain = 0
    for bias in (False, True):
        for model, dtype in itertools.product(models, dtypes):
            for launch in record(model, dtype, bias):
                signature, constants, attributes = describe(launch)
                key = (launch.kernel.__name__, *map(str, (signature, constants, attributes)), str(launch.num_warps))
                found.setdefault(key, (model, dtype, launch))
        plain = plain or len(found)
    return list(found.values()), plain


def compile_one(work: tuple[str, str, Launch, int]) -> Resources:
    """Compile a launch to a cubin for one architecture and read its resources."""
    model, dtype, launch, sm = work
    signature, constants, attributes = describe(launch)
    pdl = launch.pdl and sm >= 90
    if "PDL" in constants:
        constants["PDL"] = pdl
    if not pdl and "AHEAD" in constants:
        # Launches without PDL have these off.
        constants |= {"AHEAD": 0} | ({"KV_AHEAD": False} if "KV_AHEAD" in constants else {})
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, "enable_fp_fusion": True}
    if pdl:
        options["launch_pdl"] = True
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    ptx = compiled.asm["ptx"]
    usage = read_usage(compiled.asm["cubin"])
    before, _, _ = ptx.partition("griddepcontrol.wait")
    wide = r"ld\.global[\w.:]*\.v4\.|ld\.global[\w.:]*\.v8\.|cp\.async\.c[ga]\.shared\.global[^;]*, 0x10"
    shown = {k: v for k, v in constants.items() if k != "PDL"}
    return Resources(
        kernel=launch.kernel.__name__.strip("_").removesuffix("_kernel"),
        sm=sm,
        model=model,
        dtype=dtype,
        constants=" ".join(f"{name}={value}" for name, value in shown.items()),
        num_warps=launch.num_warps,
        pdl=pdl,
        registers=usage["REG"],
        local_bytes=usage["STACK"] + usage["LOCAL"],
        shared_bytes=compiled.metadata.shared,
        wide_loads=len(re.findall(wide, ptx)),
        wide_loads_before_wait=len(re.findall(wide, before)) if pdl else 0,
        waits=ptx.count("griddepcontrol.wait"),
        launches_dependents=ptx.count("griddepcontrol.launch_dependents"),
        cubin_bytes=len(compiled.asm["cubin"]),
    )


def read_usage(cubin: bytes) -> dict[str, int]:
    """Registers, stack and local memory of the only kernel in a cubin."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(cuobjdump), "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


def print_table(rows: list[Resources]) -> None:
    """Print one line per kernel, dtype and architecture: the largest values of its compilations."""
    header = ("kernel", "dtype", "sm", "variants", "registers", "spilled B", "shared B", "PDL")
    print(f"{header[0]:<24}{header[1]:<10}" + "".join(f"{name:>10}" for name in header[2:]))
    groups: dict[tuple[str, str, int], list[Resources]] = {}
    for row in rows:
        groups.setdefault((row.kernel, row.dtype, row.sm), []).append(row)
    for (kernel, dtype, sm), group in sorted(groups.items()):
        cells = (
            *(sm, len(group), max(row.registers for row in group), max(row.local_bytes for row in group)),
            *(max(row.shared_bytes for row in group), "yes" if any(row.pdl for row in group) else "no"),
        )
        print(f"{kernel:<24}{dtype:<10}" + "".join(f"{cell:>10}" for cell in cells))


def main() -> None:
    """Compile and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sm", type=int, nargs="+", default=[90, 80, 120], help="architectures, e.g. 90")
    parser.add_argument("--model", nargs="+", default=["small", "large"], choices=list(SIZES))
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, help="also write every compilation to this file")
    args = parser.parse_args()
    with Pool(args.jobs, _start, (args.model, args.dtype)) as pool:
        variants, plain = unique(args.model, args.dtype)
        work = [(i, sm) for sm in args.sm for i in range(len(variants) if sm == args.sm[0] else plain)]
        rows = pool.map(_compile_numbered, work, chunksize=4)
    print_table(rows)
    counts = ", ".join(f"{sum(row.sm == sm for row in rows)} for sm_{sm}" for sm in args.sm)
    print(f"{len(rows)} compilations with Triton {triton.__version__}: {counts}")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


_work: list[tuple[str, str, Launch]] = []


def _start(models: list[str], dtypes: list[str]) -> None:
    # Launches hold jitted functions, which cannot be sent between processes: each process records its own.
    _work[:] = unique(models, dtypes)[0]


def _compile_numbered(work: tuple[int, int]) -> Resources:
    index, sm = work
    return compile_one((*_work[index], sm))


if __name__ == "__main__":
    main()
