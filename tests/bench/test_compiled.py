"""The compiled peer draws the tokens of the torch engine."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from barkfast.bench.compiled import CompiledDecoder, draw
from barkfast.bench.teacher_forced import build_network, greedy_coarse
from barkfast.bench.workload import full_voice
from barkfast.config import Sampling
from barkfast.errors import InputError
from barkfast.jobs import Job, Stop
from barkfast.runtime.select import Placement
from barkfast.runtime.torch_ import TorchDecoder
from barkfast.stages.semantic import semantic_job
from barkfast.weights import open_model

CHECKPOINT = open_model("random:nano")
LAYOUT = CHECKPOINT.layout
GREEDY = Sampling(0)


def torch_decoder(stage: str) -> TorchDecoder:
    return build_network(CHECKPOINT, stage, Placement("torch", "cpu", "cpu", "float32"))


def jobs(stage: str) -> list[Job]:
    """Jobs with and without a voice, so with two prompt lengths; one coarse job starts with the second codebook."""
    voice = full_voice(LAYOUT)
    if stage == "semantic":
        options = {"max_duration_s": 0.8, "allow_early_stop": False}
        histories = None, voice["semantic_prompt"]
        return [semantic_job(np.arange(30), LAYOUT, GREEDY, history=history, **options) for history in histories]
    semantic = np.random.default_rng(0).integers(0, 10_000, 100)
    found = [greedy_coarse(LAYOUT, semantic, history, 40) for history in (None, voice)]
    return [*found, replace(found[1], slices=found[1].slices[::-1])]


@pytest.mark.parametrize("backend", [None, "eager"])
@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_greedy_tokens_are_the_torch_engines(stage: str, backend: str | None) -> None:
    reference = torch_decoder(stage)
    decoder = CompiledDecoder(reference.model, backend)
    for job in jobs(stage):
        expected = reference.run([job])[0]
        assert len(set(expected.tolist())) > 3
        tokens = decoder.run(job)
        assert tokens.dtype == np.int32 and tokens.tolist() == expected.tolist()


def test_the_job_before_leaves_nothing_behind() -> None:
    reference = torch_decoder("coarse")
    decoder = CompiledDecoder(reference.model, None)
    short, long = sorted(jobs("coarse")[:2], key=lambda job: len(job.prompt))
    expected = decoder.run(short).tolist()
    decoder.run(long)
    assert decoder.run(short).tolist() == expected


def test_draws_follow_the_softmax() -> None:
    torch.manual_seed(0)
    logits, n = torch.tensor([0.0, 1.0, 2.0, -1.0, float("-inf")]), 40_000
    counts = torch.bincount(draw(logits.expand(n, -1), 0.7), minlength=5)
    expected = n * torch.softmax(logits / 0.7, dim=-1)
    assert counts[4] == 0
    # Chi-squared with 3 degrees of freedom: 99.9 % of correct samples are below 16.3.
    assert ((counts - expected)[:4].square() / expected[:4]).sum() < 16.3


def test_sampled_tokens_are_of_their_slices() -> None:
    job = replace(jobs("coarse")[2], sampling=Sampling(0.7))
    tokens = CompiledDecoder(torch_decoder("coarse").model, None).run(job)
    for i, token in enumerate(tokens):
        first, end = job.slices[i % 2]
        assert first <= token < end


def test_what_it_does_not_do_is_refused() -> None:
    decoder = CompiledDecoder(torch_decoder("semantic").model, None)
    job = jobs("semantic")[0]
    for change in (
        {"stop": Stop(10_000)},
        {"sampling": Sampling(0.7, top_k=5)},
        {"sampling": Sampling(0.7, top_p=0.5)},
    ):
        with pytest.raises(ValueError, match="without a stop token"):
            decoder.run(replace(job, **change))
    with pytest.raises(InputError, match="positions"):
        decoder.run(replace(job, steps=2000))
