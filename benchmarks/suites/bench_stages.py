"""Each stage by itself, on every engine and in every dtype: prompts, decode steps, the fine window, the codec."""

import numpy as np
import pytest

from barkfast.bench.measure import candidates, step_job, step_times, synchronize
from barkfast.bench.roofline import codec_flop, decoder_step_bytes, fine_flop, pass_flop
from barkfast.config import FineConfig
from benchmarks.suites.measure import CLOCK, Measure
from benchmarks.suites.setting import Setting, build, fine_job, open_weights

# Positions: those of every semantic prompt, and of a coarse one whose history is full.
PROMPTS = {"semantic": 257, "coarse": 887}
STEPS, SKIPPED = 64, 2


@pytest.mark.benchmark(group="prompt")
@pytest.mark.parametrize("stage", PROMPTS)
def test_prompt(measure: Measure, setting: Setting, stage: str, engine: str, dtype: str) -> None:
    """From the prompt to where its first token can be drawn."""
    decoder, length = build(setting, engine, dtype, stage), PROMPTS[stage]
    job = step_job(stage, open_weights(setting).layout, length, 2, 0, may_stop=False)

    def read() -> None:
        slot = decoder.admit(job)
        synchronize(setting.torch_device)
        decoder.release(slot)

    measure.time(read, rounds=10, positions=length, flop=pass_flop(decoder.config, length))


@pytest.mark.benchmark(group="step", timer=CLOCK)
@pytest.mark.parametrize("stage", PROMPTS)
def test_step(measure: Measure, setting: Setting, stage: str, engine: str, dtype: str) -> None:
    """One token after another, alone: what is read decides."""
    decoder, length = build(setting, engine, dtype, stage), PROMPTS[stage]
    steps = 4 if setting.smoke else STEPS
    job = step_job(stage, open_weights(setting).layout, length, steps, 0, may_stop=False)
    times = step_times(decoder, [job], skip=SKIPPED)
    context = length + steps / 2
    n_bytes = decoder_step_bytes(decoder, context=context, candidates=candidates(job)).total
    measure.take(times, context=context, n_bytes=n_bytes)


@pytest.mark.benchmark(group="fine window")
def test_fine(measure: Measure, setting: Setting, engine: str, dtype: str) -> None:
    """A whole window, all codebooks but those of the coarse stage."""
    if engine == "cuda" and dtype == "int8":
        pytest.skip("the fine network's weights stay in half precision there: the same as in bfloat16")
    config, job = open_weights(setting).stage("fine").config, fine_job(setting)
    assert isinstance(config, FineConfig)
    refiner, frames = build(setting, engine, dtype, "fine"), len(job.window)
    measure.time(
        lambda: refiner.refine(job), rounds=5, frames=frames, flop=fine_flop(config, frames, job.first_codebook)
    )


@pytest.mark.benchmark(group="codec")
def test_codec(measure: Measure, setting: Setting, engine: str, dtype: str) -> None:
    """The codes of ten seconds, from array to array."""
    if dtype != "float32" and engine != "cuda":
        pytest.skip("the codec is in float32 there, whatever the dtype")
    model = open_weights(setting)
    frames = 8 if setting.smoke else round(10 * model.layout.coarse.rate_hz)
    shape = (model.layout.fine.n_codebooks, frames)
    codes = np.random.default_rng(0).integers(0, model.layout.codebook_size, shape).astype(np.int32)
    codec = build(setting, engine, dtype, "codec")
    measure.time(lambda: codec.decode(codes), rounds=5, frames=frames, flop=codec_flop(model.codec().config, frames))
