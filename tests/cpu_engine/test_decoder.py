"""Jobs on the CPU engine: the tests of every engine, and each dtype and instruction-set level against torch."""

import dataclasses
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.config import GPTConfig, Sampling
from barkfast.jobs import Job, Stop
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.sampling import Randomness
from contract.decoding import DecoderContract, assert_same
from contract.networks import STOP, fresh, make_job, mixed_jobs, torch_decoder
from cpu_engine.networks import CONFIG, DTYPES, cpu_decoder, isas, needs_native, packed_tensors
from ops.tools import rms_error

pytestmark = needs_native

# Other head sizes (32 and 64), without and with biases.
WIDE = [
    GPTConfig(1, 2, 64, 123, 120, 130, bias=False),
    GPTConfig(3, 1, 64, 123, 120, 144, bias=True),
]
# Long enough to be interrupted: a token takes about a millisecond on the slowest level.
SLOW = GPTConfig(4, 4, 256, 123, 120, 1024, bias=False)


class TestDecoder(DecoderContract):
    """On every instruction-set level, single and batched."""

    config = CONFIG

    def make(self, **options: Any) -> CpuDecoder:
        return cpu_decoder(**options)

    @pytest.fixture(params=[1, 4], ids="{} slots".format)
    def n_slots(self, request: pytest.FixtureRequest) -> int:
        return request.param

    @pytest.fixture(params=isas())
    def way(self, request: pytest.FixtureRequest, n_slots: int) -> dict[str, Any]:
        return {"isa": request.param, "n_slots": n_slots}

    @pytest.fixture(params=DTYPES)
    def narrow(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"dtype": request.param}

    @pytest.fixture
    def batched(self, narrow: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        cases = ((1, 2), (3, 2), (8, 3))
        return narrow | {"threads": 1}, [narrow | {"n_slots": n, "threads": threads} for n, threads in cases]

    def greedy_jobs(self) -> list[Job]:
        return [
            *super().greedy_jobs(),
            # Stop tokens far above the slice, below it, and within it.
            make_job(7, steps=6, slices=((3, 20), (2, 30)), stop=Stop(119)),
            make_job(8, steps=6, slices=((70, 95),), stop=Stop(0)),
            make_job(9, steps=6, slices=((0, 120),), stop=Stop(64)),
        ]

    def mixed_jobs(self) -> list[Job]:
        # Jobs with other vocabulary slices in the same batch.
        return [
            *super().mixed_jobs(),
            make_job(7, length=17, steps=8, sampling=Sampling(0.8), slices=((70, 95),), stop=Stop(1)),
            make_job(8, length=64, steps=9, slices=((3, 90),)),
        ]

    @pytest.mark.parametrize("config", WIDE, ids=lambda config: f"{config.n_head}x{config.head_dim}")
    def test_other_networks(self, config: GPTConfig) -> None:
        expected = torch_decoder(config).run(self.greedy_jobs())
        assert_same(cpu_decoder(config=config, n_slots=3).run(self.greedy_jobs()), expected)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_poisoned_request_fails_alone_in_every_dtype(self, dtype: str) -> None:
        self.test_a_poisoned_request_fails_alone({"dtype": dtype})


def logits_of_a_prompt(job: Job, **options: object) -> torch.Tensor:
    decoder = cpu_decoder(**options)
    slot = decoder.admit(job)
    for _ in range(job.steps):
        decoder.step()
    return torch.from_numpy(decoder.logits(slot))


# int8 rounds weights and activations to 1/127 of a row's largest number, int4 weights to 1/8 of a group's.
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.03), ("int4", 0.35)])
def test_logits_are_near_those_of_the_torch_engine(dtype: str, bound: float) -> None:
    """Compared with the rounded weights, only the rounding of the activations is left."""
    job = make_job(3, length=41, steps=1, slices=((0, 120),), n_merged=10)

    def judge(tensors: dict[str, torch.Tensor] | None) -> torch.Tensor:
        decoder = torch_decoder(CONFIG, tensors)
        sequence = decoder._prefill(job)
        return decoder.model.logits(sequence.hidden, 0, 120)[0]

    logits = logits_of_a_prompt(job, dtype=dtype)
    for tensors, limit in ((None, bound), (packed_tensors(dtype), min(bound, 0.03))):
        expected = judge(tensors)
        error = rms_error(logits, expected)
        assert error < limit, f"{dtype}: {error:.2g}"


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.03), ("int4", 0.03)])
def test_levels_agree(dtype: str, bound: float) -> None:
    """Up to rounding: of prompts to bfloat16 where the CPU multiplies bfloat16, and of inputs to int8."""
    job = make_job(3, length=41, steps=3, slices=((0, 120), (5, 6)))
    expected = logits_of_a_prompt(job, dtype=dtype, isa="scalar")
    for isa in isas():
        error = rms_error(logits_of_a_prompt(job, dtype=dtype, isa=isa), expected)
        assert error < bound, f"{isa}: {error:.2g}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("length", [1, 16, 37])
def test_the_cache_holds_what_the_torch_engine_holds(dtype: str, length: int) -> None:
    job = make_job(2, length=length, steps=6)
    decoder, judge = cpu_decoder(dtype), torch_decoder(CONFIG, packed_tensors(dtype))
    for memory in (decoder._keys, decoder._values):
        # Bytes that nothing has written are NaN, in scales too.
        memory.view(torch.uint8).fill_(0xFF)
    slot, other = decoder.admit(job), judge.admit(job)
    for _ in range(job.steps):
        decoder.step()
        judge.step()
    cache = judge._sequences[other].cache
    # With rounded inputs another token may be drawn, so only the prompt is compared.
    compared = length if dtype in ("int8", "int4") else cache.length
    for ours, theirs in zip(decoder.read_cache(slot), (cache.keys, cache.values), strict=True):
        assert ours.shape == theirs[:, 0, :, : cache.length].shape and ours.isfinite().all()
        ours, expected = ours[:, :, :compared], theirs[:, 0, :, :compared]
        atol = {"float32": 1e-5, "bfloat16": 0.05}.get(dtype, 0.1)
        torch.testing.assert_close(ours.float(), expected, atol=atol, rtol=0.01)


@pytest.mark.parametrize(
    "sampling", [Sampling(0.9), Sampling(0.7, top_k=7), Sampling(1.1, top_p=0.8, top_k=30)], ids=str
)
def test_draws_are_those_of_the_kernels_reference(sampling: Sampling) -> None:
    pytest.importorskip("triton", reason="the package of the references imports it")
    from barkfast_kernels.random.reference import gumbel_noise_reference
    from barkfast_kernels.sample.reference import filter_reference

    job = make_job(1, steps=40, sampling=sampling, slices=((0, 120), (30, 70)))
    job.random.reserve("coarse", 5)
    seed, first = Randomness(1).reserve("coarse", 0)[0], 5
    decoder = cpu_decoder()
    slot = decoder.admit(job)
    for i in range(job.steps):
        (step,) = decoder.step()
        logits = torch.from_numpy(decoder.logits(slot))
        noise = gumbel_noise_reference(seed, 0, 1, first + i, torch.arange(len(logits)))
        kept = filter_reference(logits, sampling.top_p or 2.0, sampling.top_k or 0)
        assert step.token == job.slices[i % 2][0] + int((kept / sampling.temperature + noise).argmax())


def test_a_likely_stop_token_ends_a_job() -> None:
    """The limit applies exactly to the probability after temperature."""
    job = make_job(4, steps=1, sampling=Sampling(0.8), slices=((0, 50),))
    decoder = cpu_decoder()
    slot = decoder.admit(dataclasses.replace(job, stop=Stop(STOP)))
    decoder.step()
    p = float(torch.from_numpy(decoder.logits(slot)).div(0.8).softmax(0)[-1])
    decoder.release(slot)
    for factor, n in ((0.999, 0), (1.001, 1)):
        tokens = decoder.run([dataclasses.replace(fresh(job), stop=Stop(STOP, p * factor))])[0]
        assert len(tokens) == n


class TestThreads:
    """Ctrl-C, and several threads."""

    def slow_job(self, steps: int = 900) -> Job:
        return make_job(1, length=20, steps=steps, slices=((0, 100),))

    def test_a_long_job_can_be_interrupted(self, request: pytest.FixtureRequest) -> None:
        # A shell starts its background jobs with SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
        decoder = cpu_decoder(config=SLOW, isa="scalar")
        expected = decoder.run([self.slow_job(30)])[0]
        threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            decoder.run([self.slow_job()])
        assert decoder._native.state(0)[1] < 900, "the network is not slow enough for this test"
        np.testing.assert_array_equal(decoder.run([self.slow_job(30)])[0], expected)

    def test_a_decoder_at_work_refuses_another_thread(self) -> None:
        decoder = cpu_decoder(config=SLOW, isa="scalar")
        slot = decoder.admit(self.slow_job())
        worker = threading.Thread(target=decoder._native.advance, args=([slot], 900, 1.0))
        worker.start()
        time.sleep(0.1)
        assert worker.is_alive(), "the network is not slow enough for this test"
        with pytest.raises(RuntimeError, match="at work in another thread"):
            decoder._native.pause(slot)
        worker.join()

    def test_runs_in_several_threads_take_turns(self) -> None:
        """On one decoder, and on two that share a pool."""
        jobs = mixed_jobs()
        expected = cpu_decoder(n_slots=2).run([fresh(job) for job in jobs])
        shared, own = cpu_decoder(n_slots=2), cpu_decoder(n_slots=2)
        results: dict[int, list[np.ndarray]] = {}

        def run(i: int) -> None:
            for _ in range(5):
                results[i] = (own if i == 2 else shared).run([fresh(job) for job in jobs])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(3):
            assert_same(results[i], expected)
