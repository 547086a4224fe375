"""Performance regressions, measured by numbers that other load on the machine cannot change.

Counts are exact: positions read, passes, launches, allocations, bytes. Two tests use ratios of times that are measured
in turn in one run, with wide margins and the best of a few tries. No time is compared with one of another run.
"""

import gc
import statistics
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.bench.measure import step_job, step_times
from barkfast.bench.workload import full_voice
from barkfast.config import FineConfig, GPTConfig, Layout, Sampling
from barkfast.jobs import FineJob
from barkfast.native import load_native, native_status
from barkfast.runtime import select
from barkfast.runtime.cpu.packing import plan_pieces
from barkfast.runtime.decoder import Decoder
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.weights import open_model
from barkfast.weights.random import SIZES, VOCABULARIES
from barkfast.weights.shapes import gpt_shapes

needs_native = pytest.mark.skipif(load_native() is None, reason=f"no native module: {native_status()[1]}")

LAYOUT = Layout()
COMPONENTS = {"semantic": "text", "coarse": "coarse"}
# Tries for a ratio of times: one success is enough.
TRIES = 5


def cpu_decoder(stage: str, dtype: str = "float32", n_slots: int = 1, model: str = "random:nano") -> Any:
    """The cpu engine's decoder of a stage."""
    weights = open_model(model).stage(COMPONENTS[stage])
    place = select.Placement("cpu", "cpu", "cpu", dtype, n_slots)
    decoder = select.build_decoder(stage, weights.config, weights.tensors, place)
    assert type(decoder).__name__ == "CpuDecoder"
    return decoder


class Counting:
    """Wraps a native decoder and counts the positions that go through its layers, in prompts and one by one."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self.prompts = self.steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def prefill(self, slot: int, prompt: np.ndarray, n_merged: int = 0) -> None:
        self.prompts += len(prompt) - n_merged
        self._native.prefill(slot, prompt, n_merged)

    def start(self, slot: int, fed: np.ndarray, steps: int, *args: Any, **options: Any) -> None:
        # The token that is drawn last is not fed back.
        self.steps += len(fed) + steps - 1
        self._native.start(slot, fed, steps, *args, **options)


def count_semantic(seconds: float, voice: Any) -> tuple[int, int]:
    """Positions that the semantic stage reads: in prompts, and one by one."""
    decoder = cpu_decoder("semantic")
    decoder._native = counting = Counting(decoder._native)
    history = None if voice is None else voice["semantic_prompt"]
    job = semantic_job(
        np.arange(20),
        LAYOUT,
        Sampling(0.7),
        history=history,
        max_duration_s=seconds,
        allow_early_stop=False,
        random=Randomness(0),
    )
    decoder.run([job])
    return counting.prompts, counting.steps


def count_coarse(n_semantic: int, voice: Any) -> tuple[int, int]:
    """The same for the coarse stage."""
    decoder = cpu_decoder("coarse")
    decoder._native = counting = Counting(decoder._native)
    history = None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"])
    windows = CoarseWindows(np.arange(n_semantic), LAYOUT, Sampling(0.7), history=history, random=Randomness(0))
    while (job := windows.next_job()) is not None:
        windows.append(decoder.run([job])[0])
    return counting.prompts, counting.steps


@needs_native
@pytest.mark.parametrize("with_voice", [False, True], ids=["no voice", "voice"])
def test_the_semantic_stage_reads_each_position_once(with_voice: bool):
    voice = full_voice(LAYOUT) if with_voice else None
    # 3 s are 150 tokens; text and history are summed onto 256 positions.
    assert count_semantic(3.0, voice) == (257, 149)


@needs_native
def test_coarse_windows_without_a_voice_read_nothing_twice():
    # 150 semantic tokens are 450 coarse ones in eight windows; each but the first begins with the token drawn last.
    assert count_coarse(150, None) == (257, 449)


@needs_native
def test_coarse_windows_with_a_voice_read_their_history_and_no_more():
    # The first window has the voice's 626 tokens, the next ones the maximum of 630; 450 tokens in eight windows.
    assert count_coarse(150, full_voice(LAYOUT)) == (257 + 626 + 7 * (257 + 630), 450 - 8)


@needs_native
def test_the_count_would_show_a_cache_that_is_thrown_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CoarseWindows, "_continues_previous", lambda self, prompt: False)
    prompts, _ = count_coarse(150, None)
    assert prompts == sum(257 + 60 * i for i in range(8))


@pytest.mark.parametrize(("frames", "with_voice", "windows"), [(750, False, 1), (750, True, 2), (225, True, 1)])
def test_fine_windows_are_no_more_than_frames_need(frames: int, with_voice: bool, windows: int):
    codes = np.zeros((2, frames), np.int32)
    history = full_voice(LAYOUT)["fine_prompt"] if with_voice else None
    work = FineWindows(codes, LAYOUT, Sampling(0.5), history=history)
    passes = []
    while (job := work.next_job()) is not None:
        passes.append(job.window.shape[1] - job.first_codebook)
        work.append(job.window)
    assert passes == [6] * windows


# Kernels of a step of two layers: matrix-vector products for one job, matrix products for sixteen.
LAUNCHES = {
    1: {
        "norm_qkv": 2,
        "decode_attention": 2,
        "attention_out": 2,
        "norm_fc_gelu": 2,
        "proj_residual": 2,
        "norm_head": 1,
        "sample": 1,
    },
    16: {
        "residual_norm": 5,
        "linear_qkv": 2,
        "decode_attention": 2,
        "combine_splits": 2,
        "linear_partial": 4,
        "linear_gelu": 2,
        "linear_head": 1,
        "sample": 1,
    },
}


@pytest.mark.parametrize("batch", LAUNCHES)
def test_a_step_on_a_gpu_launches_these_kernels(batch: int):
    pytest.importorskip("triton", reason="Triton is not installed")
    from barkfast.runtime.cuda.device import Options
    from barkfast.runtime.cuda.network import load_network
    from barkfast.runtime.cuda.state import State
    from barkfast.runtime.cuda.step import DecodeStep, Vocabulary
    from barkfast_kernels.launch import recording

    n_layer, n_head, n_embd, _ = SIZES["nano"]
    meta, config = torch.device("meta"), GPTConfig(n_layer, n_head, n_embd, *VOCABULARIES["coarse"], bias=False)
    tensors = {key: torch.empty(shape, device=meta) for key, shape in gpt_shapes(config).items()}
    with recording() as launches, torch.inference_mode():
        network = load_network(config, tensors, device=meta, dtype=torch.float16)
        step = DecodeStep(
            network, State.allocate(config, batch, meta, torch.float16), stage=0, options=Options(pdl=True)
        )
        vocabulary = Vocabulary.allocate(((10_000, 11_024), (11_024, 12_048)), -1, batch, meta)
        step.run(torch.empty(batch, dtype=torch.int32, device=meta), vocabulary, filtered=False)
    names = Counter(kernel_name(launch.kernel) for launch in launches)
    assert names == LAUNCHES[batch]


def kernel_name(kernel: Any) -> str:
    """The name without the parts that all kernels share."""
    return kernel.__name__.strip("_").removesuffix("_kernel")


def traced(work: Callable[[], object]) -> int:
    """Peak of the bytes that Python and numpy allocate during `work`, beyond what was allocated before."""
    work()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_decoding_allocates_nothing_per_step(dtype: str):
    decoder = cpu_decoder("coarse", dtype)

    def decode(steps: int) -> int:
        return traced(lambda: decoder.run([step_job("coarse", LAYOUT, 100, steps, 0)]))

    # The tokens themselves are four bytes each, and may be copied.
    assert decode(400) - decode(40) < 360 * 4 * 3


@needs_native
@pytest.mark.parametrize("stage", COMPONENTS)
def test_stepping_leaves_nothing_behind(stage: str):
    decoder: Decoder = cpu_decoder(stage)
    job = step_job(stage, LAYOUT, 100, 220, 0, may_stop=False)
    slot = decoder.admit(job)
    for _ in range(20):
        decoder.step()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(180):
            decoder.step()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    decoder.release(slot)
    # Less than an object per step.
    assert grown < 180 * 16


@needs_native
@pytest.mark.parametrize(("dtype", "most"), [("float32", 4.01), ("bfloat16", 2.01), ("int8", 1.22), ("int4", 0.72)])
@pytest.mark.parametrize("part", ["coarse", "fine"])
def test_packed_weights_are_no_larger_than_their_numbers(part: str, dtype: str, most: float):
    n_layer, n_head, n_embd, _ = SIZES["large"]
    make = FineConfig if part == "fine" else GPTConfig
    config = make(n_layer, n_head, n_embd, *VOCABULARIES[part], bias=False)
    shapes = gpt_shapes(config)
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    ratio = plan_pieces(config, tensors, dtype)[-1].end / numbers
    assert ratio < most, f"{ratio:.4f} bytes per number"


def holds(measure: Callable[[], float], most: float) -> None:
    """Assert that a ratio of times is below its limit in one of a few tries."""
    found: list[float] = []
    for _ in range(TRIES):
        # What else runs on the machine may last for some seconds.
        time.sleep(5.0 * len(found))
        found.append(measure())
        if found[-1] < most:
            return
    raise AssertionError(f"expected less than {most} in one of {TRIES} tries; found {found}")


@needs_native
@pytest.mark.parametrize("format", ["f32", "bf16", "int8"])
def test_a_product_takes_at_most_twice_as_long_as_reading_its_matrix(format: str):
    native = load_native()
    assert native is not None
    if native.choose_isa() == "scalar":
        pytest.skip("without vector instructions arithmetic takes longer than reading")

    def measure() -> float:
        # More data than a cache holds, on one thread, each product right next to a pass that only reads.
        found = native.time_linear(format, 3072, 768, 1, 2**26, False, 1, 25)
        return statistics.median(a / b for a, b in zip(found["seconds"], found["read_seconds"], strict=True))

    holds(measure, 2.0)


@needs_native
def test_eight_jobs_together_are_cheaper_than_one_after_the_other():
    # Wide enough that reading the weights takes most of the time; on one thread, which other load disturbs least.
    config = GPTConfig(2, 12, 768, *VOCABULARIES["coarse"], bias=False)
    decoder = build_on_one_thread(config)

    def step(batch: int) -> float:
        # The minimum: other load on the machine only adds to a time.
        return min(step_times(decoder, [step_job("coarse", LAYOUT, 64, 24, seed) for seed in range(batch)]))

    holds(lambda: step(8) / step(1), 5.0)


def build_on_one_thread(config: GPTConfig) -> Any:
    """The cpu engine's decoder in int8, with eight slots and its own pool of one thread."""
    from barkfast.runtime.cpu.decoder import CpuDecoder
    from barkfast.runtime.cpu.packing import pack_network
    from barkfast.weights.random import make_gpt

    native = load_native()
    assert native is not None
    tensors = make_gpt(config, torch.Generator().manual_seed(0))
    packed = pack_network(config, tensors, "int8", what="the network under test")
    return CpuDecoder(config, packed, stage="coarse", pool=native.Pool(1), n_slots=8, dtype="int8")


@needs_native
def test_a_window_is_filled_in_one_native_call():
    from barkfast.runtime.cpu.refiner import CpuRefiner

    weights = open_model("random:nano").stage("fine")
    refiner = select.build_refiner(weights.config, weights.tensors, select.Placement("cpu", "cpu", "cpu", "float32"))
    assert isinstance(refiner, CpuRefiner)
    calls: list[tuple[int, ...]] = []
    native = refiner._native

    class Spy:
        def refine(self, window: np.ndarray, *args: Any, **options: Any) -> Any:
            calls.append(window.shape)
            return native.refine(window, *args, **options)

    refiner._native = Spy()
    window = np.full((64, 8), LAYOUT.codebook_size, np.int32)
    window[:, :2] = 5
    refiner.refine(FineJob(window, 0, 2, LAYOUT.codebook_size, Sampling(0.5), Randomness(0)))
    assert calls == [(64, 8)]
