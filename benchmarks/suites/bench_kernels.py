"""Every kernel alone: the native ones over their shapes and dtypes, Triton's as the engine itself launches them."""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest

from barkfast.bench.machine import count_threads
from barkfast.bench.measure import NATIVE_FORMATS, candidates, fine_job, queue_times, step_job
from barkfast.bench.roofline import kernel_bytes
from barkfast.native import load_native, native_status
from barkfast.runtime.select import ENGINE_DTYPES, half_dtype, torch_dtype
from barkfast.weights.random import SIZES
from benchmarks.suites.measure import CLOCK, Measure, Setting, open_weights

pytestmark = pytest.mark.benchmark(timer=CLOCK)

# Matrices by their rows and columns, in widths of the network; the head has the rows that coarse steps draw from.
SHAPES: dict[str, Callable[[int], tuple[int, int]]] = {
    "qkv": lambda width: (3 * width, width),
    "out": lambda width: (width, width),
    "fc": lambda width: (4 * width, width),
    "proj": lambda width: (width, 4 * width),
    "head": lambda width: (1024, width),
}
# Copies that no cache holds together, in bytes.
LEAST_BYTES = 2**28
# Positions before Triton's steps.
PROMPT = 600
ROUNDS = 15
SOURCES = Path(__file__).parents[2] / "kernels" / "barkfast_kernels"


def native_or_skip(setting: Setting) -> Any:
    native = load_native()
    if native is None or setting.device != "cpu":
        pytest.skip(native_status()[1] if native is None else "the native kernels are of a CPU")
    return native


def least_bytes(setting: Setting) -> int:
    return 2**16 if setting.smoke else LEAST_BYTES


@pytest.mark.parametrize("engine", ["cpu"])
@pytest.mark.parametrize("dtype", ENGINE_DTYPES["cpu"])
@pytest.mark.parametrize("inputs", [1, 8, 256])
@pytest.mark.parametrize("matrix", SHAPES)
def test_linear(measure: Measure, setting: Setting, matrix: str, inputs: int, dtype: str, engine: str) -> None:
    """A layer's products with one row of inputs, as when decoding, with a batch's, and with a prompt's."""
    native = native_or_skip(setting)
    if setting.smoke and inputs == 256:
        pytest.skip("two are enough for a smoke test")
    rows, cols = SHAPES[matrix](SIZES[setting.size][2])
    rounds = 2 if setting.smoke else ROUNDS
    least = least_bytes(setting) if inputs <= 8 else 0
    found = native.time_linear(NATIVE_FORMATS[dtype], rows, cols, inputs, least, False, count_threads(), rounds)
    facts: dict[str, Any] = {"rows": rows, "cols": cols, "inputs": inputs, "threads": count_threads()}
    facts |= {"n_bytes": found["bytes"]} if inputs == 1 else {"flop": 2.0 * rows * cols * inputs}
    measure.benchmark.group = f"product with {inputs} row{'s' * (inputs > 1)}"
    measure.take([s * 1e3 for s in found["seconds"]], **facts)


@pytest.mark.parametrize("engine", ["cpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("positions", [64, 512, 1000])
def test_attention(measure: Measure, setting: Setting, positions: int, dtype: str, engine: str) -> None:
    """One query over a cache, layer after layer; caches are in int8 where matrices are quantized."""
    native = native_or_skip(setting)
    _, n_head, width, _ = SIZES[setting.size]
    rounds = 2 if setting.smoke else ROUNDS
    found = native.time_attend(
        NATIVE_FORMATS[dtype], n_head, width // n_head, positions, least_bytes(setting), count_threads(), rounds
    )
    measure.benchmark.group = "attention of a step"
    facts = {"positions": positions, "threads": count_threads(), "n_bytes": found["bytes"]}
    measure.take([s * 1e3 for s in found["seconds"]], **facts)


def list_kernels() -> list[str]:
    """The names of Triton's kernels, from their sources."""
    texts = [path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py")]
    return sorted(name for text in texts for name in re.findall(r"^def _?(\w+)_kernel\(", text, re.MULTILINE))


@lru_cache(maxsize=1)
def record(setting: Setting, dtype: str) -> dict[str, list[Any]]:
    """What the cuda engine launches for a step of one job and of many, for a prompt, and for a window."""
    from barkfast.runtime.cuda.decoder import CudaDecoder
    from barkfast.runtime.cuda.device import Options
    from barkfast.runtime.cuda.refiner import CudaRefiner
    from barkfast_kernels.launch import recording

    model, device = open_weights(setting), setting.torch_device
    storage = torch_dtype(half_dtype(setting.device) if dtype == "int8" else dtype)
    weights, fine = model.stage("coarse"), model.stage("fine")
    found: dict[str, list[Any]] = {}
    # Without graphs: launches have to be seen.
    common: dict[str, Any] = {"device": device, "dtype": storage, "options": Options(graphs=False)}
    prompt = 12 if setting.smoke else PROMPT
    for name, n_slots, batch in (("step", 1, 1), ("step of many", 16, 16)):
        decoder = CudaDecoder(
            weights.config, weights.tensors, stage="coarse", int8=dtype == "int8", n_slots=n_slots, **common
        )
        # Only the first prompt of several is really read: what keys and values hold does not matter to the time.
        jobs = [step_job("coarse", model.layout, prompt, 200, seed) for seed in range(batch)]
        slots = [decoder.admit(jobs[0])]
        with recording() as launches:
            slots += [decoder.admit(job) for job in jobs[1:]]
        if batch > 1:
            found["prompt"] = launches[: len(launches) // (batch - 1)]
        # Once for real, so that no buffer holds NaN by chance: with it a job would end.
        decoder.launch(slots, 1)
        with recording() as launches:
            decoder.launch(slots, 1)
        found[name] = launches
    refiner = CudaRefiner(fine.config, fine.tensors, **common)
    with recording() as launches:
        refiner.refine(fine_job(model.layout, 16 if setting.smoke else model.layout.fine.window))
    # The launches of one codebook.
    found["window"] = launches[: len(launches) // (model.layout.fine.n_codebooks - model.layout.coarse.n_codebooks)]
    # The buffers live as long as the launches that hold them.
    return found


def kernel_name(kernel: Any) -> str:
    """Without what is the same in all."""
    return kernel.__name__.strip("_").removesuffix("_kernel")


@pytest.mark.parametrize("name", list_kernels())
@pytest.mark.parametrize("weights", ["half", "int8"])
def test_triton(measure: Measure, setting: Setting, name: str, weights: str) -> None:
    """Per launch, over all launches of a step, a prompt or a codebook: each layer has weights of its own."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from barkfast.runtime.cuda.device import on_device
    from barkfast.runtime.cuda.graphs import Graphs
    from barkfast_kernels.launch import INTERPRETED, launch

    if setting.device == "cpu" and not (INTERPRETED and setting.smoke):
        pytest.skip("Triton's kernels need a GPU")
    half = "float32" if setting.device == "cpu" else half_dtype(setting.device)
    dtype = half if weights == "half" else weights
    measure.check("cuda", dtype)
    parts = record(setting, dtype)
    part = next((p for p in ("step", "step of many", "prompt", "window") if launches_of(parts[p], name)), None)
    if part is None:
        pytest.fail(f"the cuda engine launches no {name}: is it of no use any more?")
    launches = launches_of(parts[part], name)

    def again() -> None:
        for one in launches:
            pdl = False if "PDL" in one.constexprs else None
            options = {"num_warps": one.num_warps, "num_stages": one.num_stages, "pdl": pdl}
            launch(one.kernel, one.grid, one.args, one.constexprs, **options)

    device = setting.torch_device
    graphs = Graphs(device)
    with on_device(device):
        if not setting.smoke:
            graphs.run(name, again)
        times = queue_times(device, [partial(graphs.run, name, again)] * (1 if setting.smoke else 50))
    facts: dict[str, Any] = {"dtype": dtype, "launches": len(launches), "part": part}
    if part.startswith("step"):
        batch = 1 if part == "step" else 16
        n_bytes = bytes_of(setting, name, dtype, half, batch)
        facts |= {"batch": batch} | ({} if n_bytes is None else {"n_bytes": n_bytes / len(launches)})
    measure.benchmark.group = f"Triton, {part}"
    measure.take([ms / len(launches) for ms in times], **facts)


def launches_of(launches: list[Any], name: str) -> list[Any]:
    return [one for one in launches if kernel_name(one.kernel) == name]


def bytes_of(setting: Setting, name: str, dtype: str, storage: str, batch: int) -> int | None:
    """What all launches of a kernel in a step must read; None where that is next to nothing."""
    model = open_weights(setting)
    config, job = model.stage("coarse").config, step_job("coarse", model.layout, PROMPT, 2, 0)
    rows = candidates(job)
    known = kernel_bytes(config, dtype=dtype, context=PROMPT, candidates=rows, batch=batch, storage=storage)
    return next((size for piece, size in known.items() if piece in name), None)
