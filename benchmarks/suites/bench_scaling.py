"""How the time grows with the length of the context and of the clip, and shrinks with company and threads."""

import pytest
import torch

from barkfast.bench.measure import candidates, step_job, step_times
from barkfast.bench.roofline import decoder_step_bytes
from barkfast.bench.workload import FULL_VOICE, Workload, open_bark, speak
from barkfast.native import load_native
from barkfast.runtime.decoder import Decoder
from benchmarks.suites.measure import CLOCK, Measure
from benchmarks.suites.setting import Setting, build, count_threads, list_engines, open_weights

STEPS = 32
CONTEXTS, BATCHES, SECONDS = (64, 256, 512, 900), (1, 2, 4, 8, 16), (2.5, 5.0, 10.0)
# Engines that run several jobs together.
TOGETHER = ("cpu", "cuda")


def steps_of(setting: Setting) -> int:
    return 4 if setting.smoke else STEPS


@pytest.mark.benchmark(group="step against context", timer=CLOCK)
@pytest.mark.parametrize("context", CONTEXTS)
def test_context(measure: Measure, setting: Setting, engine: str, dtype: str, context: int) -> None:
    """Coarse steps after prompts of any length: weights stay the same, keys and values grow."""
    if setting.smoke and context > CONTEXTS[0]:
        pytest.skip("one is enough for a smoke test")
    decoder, steps = build(setting, engine, dtype, "coarse"), steps_of(setting)
    job = step_job("coarse", open_weights(setting).layout, context, steps, 0)
    n_bytes = decoder_step_bytes(decoder, context=context + steps / 2, candidates=candidates(job)).total
    measure.take(step_times(decoder, [job]), context=context, n_bytes=n_bytes)


@pytest.mark.benchmark(group="step against batch", timer=CLOCK)
@pytest.mark.parametrize("batch", BATCHES)
def test_batch(measure: Measure, setting: Setting, engine: str, dtype: str, batch: int) -> None:
    """Steps of several jobs together, in the middle of a clip."""
    if engine not in TOGETHER:
        pytest.skip(f"the {engine} engine runs one job at a time")
    if setting.smoke and batch > 2:
        pytest.skip("two are enough for a smoke test")
    decoder, steps = build(setting, engine, dtype, "coarse", max(BATCHES)), steps_of(setting)
    layout, prompt = open_weights(setting).layout, 64 if setting.smoke else 600
    jobs = [step_job("coarse", layout, prompt, steps, seed) for seed in range(batch)]
    n_bytes = decoder_step_bytes(decoder, context=prompt + steps / 2, candidates=candidates(jobs[0]), batch=batch).total
    measure.take(step_times(decoder, jobs), batch=batch, context=prompt, n_bytes=n_bytes)


@pytest.mark.benchmark(group="step against threads", timer=CLOCK)
@pytest.mark.parametrize("threads", count_threads())
def test_threads(measure: Measure, setting: Setting, engine: str, dtype: str, threads: int) -> None:
    """Coarse steps on a CPU."""
    if setting.device != "cpu":
        pytest.skip("threads are of a CPU")
    prompt, steps = 64 if setting.smoke else 600, steps_of(setting)
    job = step_job("coarse", open_weights(setting).layout, prompt, steps, 0)
    if engine == "cpu":
        times = step_times(decoder_with(setting, dtype, threads), [job])
    else:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            times = step_times(build(setting, engine, dtype, "coarse"), [job])
        finally:
            torch.set_num_threads(before)
    measure.take(times, threads=threads, context=prompt)


def decoder_with(setting: Setting, dtype: str, threads: int) -> Decoder:
    """The cpu engine's coarse network with threads of its own."""
    from barkfast.runtime.cpu.decoder import CpuDecoder
    from barkfast.runtime.cpu.store import open_packed

    native, weights = load_native(), open_weights(setting).stage("coarse")
    assert native is not None
    packed = open_packed(weights.config, weights.tensors, dtype, what="the coarse network", content=weights.content)
    return CpuDecoder(weights.config, packed, stage="coarse", pool=native.Pool(threads), dtype=dtype)


@pytest.mark.benchmark(group="clip against length")
@pytest.mark.parametrize("voice", ["none", FULL_VOICE])
@pytest.mark.parametrize("seconds", SECONDS)
def test_clip(measure: Measure, setting: Setting, engine: str, dtype: str, seconds: float, voice: str) -> None:
    """From text to samples; without a voice the history grows with the clip, with one it is full from the start."""
    if (engine, dtype) != list_engines(setting)[0] and (setting.smoke or engine == "torch"):
        pytest.skip("minutes each")
    if setting.smoke:
        if seconds > SECONDS[0]:
            pytest.skip("one is enough for a smoke test")
        seconds = 0.05
    case = Workload(setting.model, setting.device, dtype, engine, voice, seconds)
    bark = open_bark(case)
    bark.load()
    measure.time(lambda: speak(bark, case, 1), rounds=2, seconds=seconds, voice=voice)
