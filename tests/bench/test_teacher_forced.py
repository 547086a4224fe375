"""A teacher-forced network sees the given tokens at every step, on every engine, whatever it would choose."""

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from barkfast.bench.teacher_forced import (
    GREEDY,
    build_network,
    count_alone,
    greedy_coarse,
    greedy_semantic,
    run_greedy,
    teacher_force,
    without_stop,
)
from barkfast.jobs import Job
from barkfast.native import native_status
from barkfast.runtime import select
from barkfast.weights import open_model

needs_native = pytest.mark.skipif(not native_status()[0], reason=f"native module {native_status()[1]}")
interpreted = [
    pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are interpreted only where there is no GPU"),
]
PLACEMENTS = [
    ("torch", "float32"),
    # Retains the cache of a job for the one that continues it; that cache has the network's own tokens.
    ("torch", "bfloat16"),
    pytest.param("cpu", "float32", marks=needs_native),
    pytest.param("cuda", "float32", marks=interpreted),
]
CHECKPOINT = open_model("random:nano")
LAYOUT = CHECKPOINT.layout


def build(engine: str, dtype: str):
    return build_network(CHECKPOINT, "coarse", select.Placement(engine, "cpu", "cpu", dtype))


def coarse_job(steps: int = 3) -> Job:
    return greedy_coarse(LAYOUT, np.arange(40), None, steps)


def one_by_one(job: Job, path: np.ndarray) -> list[np.ndarray]:
    """The logits along a path, each computed from a prompt of its own."""
    reference, rows = build("torch", "float32"), []
    for n in range(len(path)):
        prompt = np.concatenate([job.prompt, path[:n]]).astype(np.int32)
        slices = job.slices[n % 2 :] + job.slices[: n % 2]
        slot = reference.admit(dataclasses.replace(job, prompt=prompt, steps=1, slices=slices))
        reference.step()
        rows.append(reference.logits(slot))
        reference.release(slot)
    return rows


@pytest.mark.parametrize(("engine", "dtype"), PLACEMENTS)
def test_a_path_that_the_network_would_not_take(engine: str, dtype: str) -> None:
    job = coarse_job()
    path = np.array([first + 7 * n for n, (first, _) in zip(range(3), job.slices * 2, strict=False)], np.int32)
    found = teacher_force(build(engine, dtype), job, path)
    assert not (found.tokens == path).any(), "the path is the network's own"
    for row, expected in zip(found.logits, one_by_one(job, path), strict=True):
        error = np.linalg.norm(row - expected) / np.linalg.norm(expected)
        assert error < (1e-4 if dtype == "float32" else 0.05)


@pytest.mark.parametrize(("engine", "dtype"), PLACEMENTS)
def test_its_own_path(engine: str, dtype: str) -> None:
    job, decoder = coarse_job(), build(engine, dtype)
    own = teacher_force(decoder, job)
    np.testing.assert_array_equal(own.tokens, run_greedy(decoder, job))
    again = teacher_force(decoder, job, own.tokens)
    np.testing.assert_array_equal(again.tokens, own.tokens)
    assert count_alone(decoder, job, own.tokens, own.tokens) == (3, 3)
    # The path differs at the second token. A free run continues from its own choice, so only two are compared.
    path = own.tokens.copy()
    path[1] += 1 if path[1] + 1 < job.slices[1][1] else -1
    forced = teacher_force(decoder, job, path)
    assert count_alone(decoder, job, path, forced.tokens) == (2, 2)


@pytest.mark.parametrize("engine", ["torch", pytest.param("cpu", marks=needs_native)])
def test_a_path_that_ends_with_the_stop_token(engine: str) -> None:
    decoder = build_network(CHECKPOINT, "semantic", select.Placement(engine, "cpu", "cpu", "float32"))
    job = greedy_semantic(LAYOUT, np.arange(9), None, 6)
    stop = LAYOUT.semantic.pad_token
    path = np.append(teacher_force(decoder, job).tokens[:3], stop).astype(np.int32)
    found = teacher_force(decoder, job, path)
    np.testing.assert_array_equal(found.tokens[:3], path[:3])
    assert [len(row) for row in found.logits] == [LAYOUT.semantic.vocab_size + 1] * 4
    np.testing.assert_array_equal(without_stop(job, path), path[:3])
    # A stop token that is likely enough at once ends a job and a teacher-forced pass at the first step.
    eager = dataclasses.replace(job, stop=dataclasses.replace(job.stop, min_p=0.0), sampling=GREEDY)
    assert teacher_force(decoder, eager).tokens.tolist() == run_greedy(decoder, eager).tolist() == [stop]
