"""The GPU engine on a GPU: exact in float32, close in half precision, equal without graphs, no wait per token."""

import dataclasses
import logging
import os
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from barkfast import Bark
from barkfast.config import Layout, Sampling
from barkfast.jobs import FineJob, Job, Stop
from barkfast.runtime import select
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.sampling import Randomness
from barkfast.weights import open_model
from barkfast_kernels.variant import VARIANTS
from contract.networks import mixed_jobs
from cuda_engine.networks import cuda_decoder

pytestmark = pytest.mark.gpu

SEMANTIC = Layout().semantic
HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@cache
def stage(model: str, part: str):
    return open_model(model).stage(part)


def decoder_of(
    part: str, dtype: torch.dtype = torch.bfloat16, *, model: str = "random:small", **settings: object
) -> CudaDecoder:
    weights = stage(model, part)
    name = "semantic" if part == "text" else part
    return CudaDecoder(
        weights.config, weights.tensors, **{"stage": name, "device": torch.device("cuda:0"), "dtype": dtype} | settings
    )


def semantic_job(seed: int = 0, steps: int = 100, sampling: Sampling = Sampling(0.7), stop: Stop | None = None) -> Job:
    text = np.random.default_rng(seed).integers(SEMANTIC.text_offset, 129_000, SEMANTIC.n_slots)
    history = np.full(SEMANTIC.n_slots, SEMANTIC.pad_token)
    prompt = np.concatenate([text, history, [SEMANTIC.infer_token]]).astype(np.int32)
    slices = ((0, SEMANTIC.vocab_size),)
    return Job(prompt, steps, slices, sampling, stop, n_merged=SEMANTIC.n_slots, random=Randomness(seed))


def coarse_job(seed: int = 0, history: int = 300, steps: int = 60, sampling: Sampling = Sampling(0.7)) -> Job:
    prompt = np.random.default_rng(seed).integers(10_000, 12_048, 257 + history).astype(np.int32)
    return Job(prompt, steps, ((10_000, 11_024), (11_024, 12_048)), sampling, random=Randomness(seed))


def again(job: Job) -> Job:
    return dataclasses.replace(job, random=Randomness(job.random.seed))


@pytest.mark.parametrize("part", ["text", "coarse"])
@pytest.mark.parametrize("n_slots", [1, 16], ids=["vector", "matrix"])
def test_float32_greedy_tokens_are_those_of_the_torch_engine(part: str, n_slots: int) -> None:
    make = semantic_job if part == "text" else coarse_job
    jobs = [make(seed, sampling=Sampling(0.0)) for seed in range(2)]
    weights = stage("random:small", part)
    placement = select.Placement("torch", "cuda:0", "cuda:0", "float32")
    judge = select.build_decoder("semantic", weights.config, weights.tensors, placement)
    expected = judge.run(jobs)
    for tokens, same in zip(decoder_of(part, torch.float32, n_slots=n_slots).run(jobs), expected, strict=True):
        np.testing.assert_array_equal(tokens, same)


def test_float32_greedy_fine_codes_are_those_of_the_torch_engine() -> None:
    weights = stage("random:small", "fine")
    window = np.random.default_rng(0).integers(0, 1024, (1024, 8)).astype(np.int32)
    job = FineJob(window, 300, 2, 1024, Sampling(0.0), Randomness(0))
    results = []
    for engine in ("torch", "cuda"):
        placement = select.Placement(engine, "cuda:0", "cuda:0", "float32")
        results.append(select.build_refiner(weights.config, weights.tensors, placement).refine(job))
    np.testing.assert_array_equal(*results)


def logits_after(decoder: CudaDecoder, job: Job, forced: np.ndarray) -> torch.Tensor:
    """Logits for the token after `forced`, whose tokens follow the prompt as in a job that continues from `job`."""
    longer = np.concatenate([job.prompt, forced]).astype(np.int32)
    chained = dataclasses.replace(job, prompt=longer, continues_from=job, steps=1)
    slot = decoder.admit(chained)
    decoder.step()
    logits = torch.from_numpy(decoder.logits(slot)).double()
    decoder.release(slot)
    return logits


@HALVES
@pytest.mark.parametrize("part", ["text", "coarse"])
def test_half_precision_logits_are_within_a_hundredth(part: str, dtype: torch.dtype) -> None:
    job = (semantic_job if part == "text" else coarse_job)(sampling=Sampling(0.0))
    forced = decoder_of(part, torch.float32).run([job])[0][:40]
    expected = logits_after(decoder_of(part, torch.float32), job, forced)
    expected -= expected.mean()
    logits = logits_after(decoder_of(part, dtype), job, forced)
    error = (logits - logits.mean() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    print(f"{part} {dtype}: RMS ratio {float(error):.2e}")
    assert error < 1e-2


@HALVES
@pytest.mark.parametrize("n_slots", [1, 16], ids=["vector", "matrix"])
def test_graphs_and_overlap_change_no_token(dtype: torch.dtype, n_slots: int) -> None:
    jobs = [semantic_job(seed, stop=Stop(SEMANTIC.pad_token, 0.2)) for seed in range(3)]
    results = []
    for options in (Options(False, False), Options(True, False), Options(False, True), Options(True, True)):
        if options.pdl and torch.cuda.get_device_capability()[0] < 9:
            continue
        decoder = decoder_of("text", dtype, n_slots=n_slots, options=options)
        results.append([decoder.run([again(job) for job in jobs]) for _ in range(2)])
        state = decoder.state
        results[-1].append([t.float().cpu().numpy() for t in (state.x, state.keys[:, :, :, :257])])
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            for one, two in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, two)


@HALVES
@pytest.mark.parametrize("n_slots", [8, 64], ids=["vector", "matrix"])
def test_seeds_reproduce_across_runs_and_batch_sizes(dtype: torch.dtype, n_slots: int) -> None:
    n = min(n_slots, 24)
    jobs = [coarse_job(seed, history=10 * seed, steps=20 + seed) for seed in range(n)]
    decoder = decoder_of("coarse", dtype, n_slots=n_slots)
    together = decoder.run([again(job) for job in jobs])
    for seed in (0, 1, n - 1):
        np.testing.assert_array_equal(decoder.run([again(jobs[seed])])[0], together[seed])
    if n_slots == 8:
        alone = decoder_of("coarse", dtype).run([again(jobs[3])])[0]
        np.testing.assert_array_equal(alone, together[3])
    for tokens, same in zip(decoder.run([again(job) for job in jobs]), together, strict=True):
        np.testing.assert_array_equal(tokens, same)


def hopper_options() -> Options:
    """Options for the CUDA kernels of the decode step."""
    options = Options.for_device(torch.device("cuda:0"))
    if not options.pdl:
        pytest.skip("the CUDA kernels of a step need compute capability 9.0")
    return dataclasses.replace(options, variant=VARIANTS["C9 C8, weights to L2"])


@pytest.mark.parametrize("part", ["text", "coarse"])
@pytest.mark.parametrize("n_slots", [1, 8])
def test_float32_greedy_tokens_of_the_cuda_kernels_are_those_of_triton(part: str, n_slots: int) -> None:
    make = semantic_job if part == "text" else coarse_job
    jobs = [make(seed, sampling=Sampling(0.0)) for seed in range(n_slots)]
    expected = decoder_of(part, torch.float32, n_slots=n_slots).run(jobs)
    ours = decoder_of(part, torch.float32, n_slots=n_slots, options=hopper_options()).run(jobs)
    for tokens, same in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(tokens, same)


@HALVES
@pytest.mark.parametrize("int8", [False, True])
def test_logits_of_the_cuda_kernels_are_those_of_triton(dtype: torch.dtype, int8: bool) -> None:
    job = coarse_job(history=600, sampling=Sampling(0.0))
    forced = decoder_of("coarse", dtype, int8=int8).run([job])[0][:40]
    logits = [
        logits_after(decoder_of("coarse", dtype, int8=int8, **options), job, forced)
        for options in ({}, {"options": hopper_options()})
    ]
    expected = logits[0] - logits[0].mean()
    error = (logits[1] - logits[1].mean() - expected).norm() / expected.norm()
    print(f"coarse {dtype} int8={int8}: RMS ratio of the CUDA kernels' logits to Triton's {float(error):.2e}")
    assert error < 1e-2


@HALVES
def test_graphs_and_overlap_change_no_token_of_the_cuda_kernels(dtype: torch.dtype) -> None:
    jobs = [semantic_job(seed, stop=Stop(SEMANTIC.pad_token, 0.2)) for seed in range(3)]
    results = []
    for graphs, pdl in ((False, False), (True, False), (False, True), (True, True)):
        options = dataclasses.replace(hopper_options(), graphs=graphs, pdl=pdl)
        decoder = decoder_of("text", dtype, n_slots=2, options=options)
        results += [decoder.run([again(job) for job in jobs]) for _ in range(3)]
    for other in results[1:]:
        for tokens, same in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(tokens, same)


def test_the_loop_never_waits_for_the_device_token_by_token() -> None:
    decoder = decoder_of("coarse")
    job = coarse_job(steps=400)
    decoder.run([again(job)])
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        decoder.run([again(job)])
    calls = Counter(event.name for event in profile.events())
    replays = 400 // 4
    assert calls["cudaGraphLaunch"] + calls["cuGraphLaunch"] <= replays + 10
    assert calls["cudaStreamSynchronize"] + calls["cudaDeviceSynchronize"] <= 4, calls
    # One wait per replay, for the snapshot of the replay before.
    assert calls["cudaEventSynchronize"] <= replays + 10, calls


def test_a_capture_that_fails_costs_one_warning_and_no_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = coarse_job(steps=30)
    expected = decoder_of("coarse").run([again(job)])[0]

    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("no room for a graph")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    decoder = decoder_of("coarse")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_array_equal(decoder.run([again(job)])[0], expected)
    assert len([r for r in caplog.records if "capture" in r.message]) == 1


def test_a_capture_that_breaks_inside_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    from barkfast.runtime.cuda.graphs import Graphs

    graphs = Graphs(torch.device("cuda:0"))
    counter = torch.zeros((), device="cuda")

    def work() -> None:
        counter.add_(1)
        counter.item()  # not allowed while capturing

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            graphs.run("key", work)
    assert counter.item() == 3
    assert len([r for r in caplog.records if "capture" in r.message]) == 1


def test_a_network_waits_on_the_cpu_between_uses() -> None:
    job = coarse_job(steps=30)
    expected = decoder_of("coarse").run([again(job)])[0]
    decoder = decoder_of("coarse", storage_device=torch.device("cpu"))
    for _ in range(2):
        decoder.to("cuda")
        np.testing.assert_array_equal(decoder.run([again(job)])[0], expected)
        decoder.to("cpu")
        torch.cuda.synchronize()


def test_large_in_bfloat16_fits_in_3_gb_with_all_stages() -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    parts = {}
    for part in ("text", "coarse", "fine"):
        weights = open_model("random:large").stage(part)
        placement = select.Placement("cuda", "cuda:0", "cuda:0", "bfloat16")
        name = "semantic" if part == "text" else part
        if part == "fine":
            parts[part] = select.build_refiner(weights.config, weights.tensors, placement)
        else:
            parts[part] = select.build_decoder(name, weights.config, weights.tensors, placement)
    codec = open_model("random:large").codec()
    parts["codec"] = select.build_codec(codec.config, codec.tensors, placement)
    parts["text"].run([semantic_job(steps=50)])
    parts["coarse"].run([coarse_job(history=630)])
    window = np.zeros((1024, 8), np.int32)
    parts["fine"].refine(FineJob(window, 0, 2, 1024, Sampling(0.5), Randomness(0)))
    parts["codec"].decode(np.zeros((8, 750), np.int32))
    peak, reserved = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_reserved()
    print(f"allocated at most {peak / 1e9:.2f} GB, reserved {reserved / 1e9:.2f} GB")
    assert peak < 3e9


def test_offloading_keeps_working(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Bark("random:demo", device="cuda").generate("Hello.", seed=1, max_duration_s=1.0)
    monkeypatch.setenv("SUNO_OFFLOAD_CPU", "true")
    bark = Bark("random:demo", device="cuda")
    for _ in range(2):
        generation = bark.generate("Hello.", seed=1, max_duration_s=1.0)
        np.testing.assert_array_equal(generation.fine, expected.fine)
        np.testing.assert_array_equal(generation.audio, expected.audio)


@pytest.mark.parametrize("dtype", ["auto", "float32", "float16", "bfloat16", "int8"])
def test_the_whole_pipeline_speaks(dtype: str) -> None:
    bark = Bark("random:demo", device="cuda", dtype=dtype)
    first = bark.generate("Hello, this is a test.", seed=3)
    second = bark.generate("Hello, this is a test.", seed=3)
    np.testing.assert_array_equal(first.audio, second.audio)
    assert np.isfinite(first.audio).all() and first.audio.std() > 1e-3
    assert type(bark.components.network("coarse")).__name__ == "CudaDecoder", "the engine fell back"


def test_greedy_speech_in_float32_is_that_of_the_torch_engine() -> None:
    greedy = {"text_temp": 0, "waveform_temp": 0, "fine_temp": 0, "max_duration_s": 2.0}
    ours, theirs = (
        Bark("random:demo", device="cuda", dtype="float32", engine=engine).generate("Hello.", **greedy)
        for engine in ("cuda", "torch")
    )
    for name in ("semantic", "coarse", "fine"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert np.abs(ours.audio - theirs.audio).max() < 1e-4


def test_a_device_that_does_not_exist_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="cuda:99.*sees"):
        Bark("random:demo", device="cuda:99")


def test_mixed_requests_by_graph_equal_those_without() -> None:
    by_graph = cuda_decoder(torch.float16, n_slots=4).run(mixed_jobs())
    direct = cuda_decoder(torch.float16, n_slots=4, options=Options(graphs=False, pdl=False)).run(mixed_jobs())
    for one, two in zip(by_graph, direct, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_interpreter_is_not_used_here() -> None:
    assert os.environ.get("TRITON_INTERPRET", "0") != "1"
