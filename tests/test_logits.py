"""Every engine returns the logits that its last step drew from, and those of any codebook."""

import dataclasses
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.config import FineConfig, GPTConfig, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.jobs import FineJob, Job, Stop
from barkfast.native import native_status
from barkfast.runtime import select
from barkfast.runtime.decoder import Decoder, Refiner
from barkfast.runtime.sampling import Randomness
from barkfast.weights.random import make_gpt

CONFIG = GPTConfig(
    n_layer=2, n_head=2, n_embd=64, input_vocab_size=120, output_vocab_size=120, block_size=128, bias=True
)
FINE = FineConfig(
    n_layer=2, n_head=2, n_embd=64, input_vocab_size=40, output_vocab_size=40, block_size=32, n_codes_total=4
)
STOP = 100
# Two widths, so that the index of the stop token's logit changes from step to step.
SLICES = ((0, 50), (50, 90))
GREEDY = Sampling(0)

ENGINES = [
    "torch",
    pytest.param("cpu", marks=pytest.mark.skipif(not native_status()[0], reason=f"no module: {native_status()[1]}")),
    pytest.param("cuda", marks=pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")),
]


def place(engine: str, n_slots: int = 1) -> select.Placement:
    # Without a GPU the kernels are interpreted on the CPU.
    device = "cuda:0" if engine == "cuda" and torch.cuda.is_available() else "cpu"
    return select.Placement(engine, device, device, "float32", n_slots)


@cache
def tensors(config: GPTConfig | FineConfig) -> dict[str, torch.Tensor]:
    made = make_gpt(config, torch.Generator().manual_seed(1))
    if config is CONFIG:
        # So that a greedy job does not stop by itself.
        made["lm_head.weight"][90:] *= 0.1
    return made


def decoder_of(engine: str, n_slots: int = 1) -> Decoder:
    decoder = select.build_decoder("coarse", CONFIG, tensors(CONFIG), place(engine, n_slots))
    assert type(decoder).__name__ == f"{engine.title()}Decoder"
    return decoder


def refiner_of(engine: str) -> Refiner:
    refiner = select.build_refiner(FINE, tensors(FINE), place(engine))
    assert type(refiner).__name__ == f"{engine.title()}Refiner"
    return refiner


def make_job(seed: int = 0, **fields: Any) -> Job:
    prompt = np.random.default_rng(seed).integers(0, 118, 20 + 3 * seed).astype(np.int32)
    return dataclasses.replace(Job(prompt, 6, SLICES, GREEDY, Stop(STOP)), **fields)


def judge_logits(job: Job, tokens: list[int]) -> np.ndarray:
    """Logits after a prompt and some tokens, from a fresh decoder of the torch engine."""
    decoder = decoder_of("torch")
    prompt = np.concatenate([job.prompt, tokens]).astype(np.int32)
    turn = len(tokens) % len(job.slices)
    slices = job.slices[turn:] + job.slices[:turn]
    slot = decoder.admit(dataclasses.replace(job, prompt=prompt, steps=1, slices=slices))
    decoder.step()
    return decoder.logits(slot)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stop", [None, Stop(STOP), Stop(90)], ids=["no stop", "apart", "behind a slice"])
def test_each_steps_logits_are_shown(engine: str, stop: Stop | None) -> None:
    job, decoder, tokens = make_job(stop=stop), decoder_of(engine), []
    slot = decoder.admit(job)
    for i in range(job.steps):
        (step,) = decoder.step()
        logits = decoder.logits(slot)
        first, end = SLICES[i % 2]
        assert logits.dtype == np.float32 and logits.shape == (end - first + (stop is not None),)
        np.testing.assert_allclose(logits, judge_logits(job, tokens), atol=2e-4)
        assert step.token == (None if logits.argmax() == end - first else first + logits.argmax())
        if step.done:
            break
        tokens.append(step.token)
    assert len(tokens) > 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_job_that_stops_shows_what_stopped_it(engine: str) -> None:
    decoder = decoder_of(engine)
    slot = decoder.admit(make_job(sampling=Sampling(1.0), stop=Stop(STOP, 0.0), random=Randomness(0)))
    (step,) = decoder.step()
    assert step.token is None and step.done
    assert decoder.logits(slot).shape == (51,)


@pytest.mark.parametrize("engine", ENGINES)
def test_jobs_that_run_together_show_their_own(engine: str) -> None:
    # The second starts with the second slice.
    jobs = [make_job(0), make_job(1, slices=SLICES[::-1]), make_job(2, stop=None)]
    decoder, tokens = decoder_of(engine, n_slots=3), {}
    slots = {decoder.admit(job): job for job in jobs}
    for n in range(3):
        for step in decoder.step():
            if n:
                logits = decoder.logits(step.slot)
                expected = judge_logits(slots[step.slot], tokens[step.slot])
                np.testing.assert_allclose(logits, expected, atol=2e-4)
            tokens.setdefault(step.slot, []).append(step.token)
    assert all(len(drawn) == 3 and None not in drawn for drawn in tokens.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_logits_that_are_not_there_are_refused(engine: str) -> None:
    decoder = decoder_of(engine)
    with pytest.raises(EngineError, match="slot 0 has no logits"):
        decoder.logits(0)
    slot = decoder.admit(make_job())
    with pytest.raises(EngineError, match="right after a step"):
        decoder.logits(slot)
    decoder.step()
    decoder.logits(slot)
    decoder.release(slot)
    assert decoder.admit(make_job(1)) == slot
    with pytest.raises(EngineError, match="has no logits"):
        decoder.logits(slot)
    decoder.step()
    decoder.logits(slot)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_codebooks_logits_are_shown(engine: str) -> None:
    window = np.random.default_rng(0).integers(0, 32, (21, 4)).astype(np.int32)
    window[9:, 2:] = 32
    before, refiner = window.copy(), refiner_of(engine)
    for codebook in (1, 2, 3):
        logits = refiner.logits(window, codebook)
        assert logits.dtype == np.float32 and logits.shape == (21, 40)
        np.testing.assert_allclose(logits, refiner_of("torch").logits(window, codebook), atol=2e-4)
    np.testing.assert_array_equal(window, before)
    filled = refiner.refine(FineJob(window, 9, 2, 32, GREEDY))
    np.testing.assert_array_equal(filled[9:, 2], refiner.logits(window, 2)[9:, :32].argmax(-1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_codebook_or_window_that_does_not_fit_is_refused(engine: str) -> None:
    refiner, window = refiner_of(engine), np.zeros((21, 4), np.int32)
    for codebook in (0, 4, -1):
        with pytest.raises(InputError, match=f"codebook {codebook} cannot be predicted; expected 1 to 3"):
            refiner.logits(window, codebook)
    for shape in ((33, 4), (21, 5)):
        with pytest.raises(InputError, match=f"{shape[0]} frames and {shape[1]} codebooks does not fit"):
            refiner.logits(np.zeros(shape, np.int32), 1)
