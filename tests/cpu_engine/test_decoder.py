"""Jobs on the CPU engine: the torch engine's greedy tokens, and each request's own tokens in any company."""

import dataclasses
import signal
import threading
import time

import numpy as np
import pytest
import torch

from barkfast.config import GPTConfig, Sampling
from barkfast.errors import EngineError
from barkfast.jobs import Job, Stop
from barkfast.runtime.sampling import Randomness
from cpu_engine.networks import (
    CONFIG,
    DTYPES,
    POISON,
    STOP,
    cpu_decoder,
    fresh,
    isas,
    make_job,
    mixed_jobs,
    needs_native,
    packed_tensors,
    torch_decoder,
)

pytestmark = needs_native

# Other widths of a head, and no biases.
WIDE = [
    GPTConfig(1, 2, 64, 123, 120, 130, bias=False),
    GPTConfig(3, 1, 64, 123, 120, 144, bias=True),
]
# Long enough to be interrupted: a token takes about a millisecond on the slowest level.
SLOW = GPTConfig(4, 4, 256, 123, 120, 1024, bias=False)


def greedy_jobs() -> list[Job]:
    return [
        make_job(1),
        make_job(2, length=1, steps=9),
        make_job(3, length=64, steps=8, merged=20),
        make_job(4, length=100, steps=9, slices=((50, 100), (0, 50))),
        make_job(5, steps=20, slices=((0, 100),), stop=Stop(STOP)),
        make_job(6, steps=9, slices=((0, 40), (40, 41), (41, 99)), stop=Stop(STOP, 0.2)),
        # Stop tokens far behind the slice, in front of it, and within it.
        make_job(7, steps=6, slices=((3, 20), (2, 30)), stop=Stop(119)),
        make_job(8, steps=6, slices=((70, 95),), stop=Stop(0)),
        make_job(9, steps=6, slices=((0, 120),), stop=Stop(64)),
    ]


def assert_same(results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for i, (tokens, same) in enumerate(zip(results, expected, strict=True)):
        np.testing.assert_array_equal(tokens, same, err_msg=f"job {i}")


@pytest.mark.parametrize("n_slots", [1, 4])
@pytest.mark.parametrize("isa", isas())
def test_greedy_tokens_are_those_of_the_torch_engine(isa: str, n_slots: int) -> None:
    expected = torch_decoder().run(greedy_jobs())
    assert len({len(tokens) for tokens in expected}) > 1, "no job ended early: the stop rule is not tested"
    assert_same(cpu_decoder(n_slots=n_slots, isa=isa).run(greedy_jobs()), expected)


@pytest.mark.parametrize("config", WIDE, ids=lambda config: f"{config.n_head}x{config.head_dim}")
def test_other_networks(config: GPTConfig) -> None:
    assert_same(cpu_decoder(config=config, n_slots=3).run(greedy_jobs()), torch_decoder(config).run(greedy_jobs()))


def test_the_last_position_of_the_network_can_be_used() -> None:
    job = make_job(9, length=CONFIG.block_size - 3, steps=4)
    assert_same(cpu_decoder().run([job]), torch_decoder().run([job]))


def logits_of_a_prompt(job: Job, **options: object) -> np.ndarray:
    decoder = cpu_decoder(**options)
    slot = decoder.admit(job)
    for _ in range(job.steps):
        decoder.step()
    return decoder._native.logits(slot)


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    """RMS of the difference over RMS of what is expected."""
    return float(np.sqrt(np.mean((values - expected) ** 2) / np.mean(expected**2)))


# int8 rounds weights and activations to 1/127 of a row's largest, int4 weights to 1/8 of a group's.
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.03), ("int4", 0.35)])
def test_logits_are_near_those_of_the_torch_engine(dtype: str, bound: float) -> None:
    """Against the rounded weights, only the activations' rounding is left."""
    job = make_job(3, length=41, steps=1, slices=((0, 120),), merged=10)

    def judge(tensors: dict[str, torch.Tensor] | None) -> np.ndarray:
        decoder = torch_decoder(tensors=tensors)
        sequence = decoder._prefill(job)
        return decoder.model.logits(sequence.hidden, 0, 120)[0].numpy()

    logits = logits_of_a_prompt(job, dtype=dtype)
    for tensors, limit in ((None, bound), (packed_tensors(dtype), min(bound, 0.03))):
        expected = judge(tensors)
        error = relative_error(logits, expected)
        assert error < limit, f"{dtype}: {error:.2g}"


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.03), ("int4", 0.03)])
def test_levels_agree(dtype: str, bound: float) -> None:
    """Up to rounding, of prompts to bfloat16 where the CPU multiplies that, and of inputs to int8."""
    job = make_job(3, length=41, steps=3, slices=((0, 120), (5, 6)))
    expected = logits_of_a_prompt(job, dtype=dtype, isa="scalar")
    for isa in isas():
        error = relative_error(logits_of_a_prompt(job, dtype=dtype, isa=isa), expected)
        assert error < bound, f"{isa}: {error:.2g}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("length", [1, 16, 37])
def test_the_cache_holds_what_the_torch_engine_holds(dtype: str, length: int) -> None:
    job = make_job(2, length=length, steps=6)
    decoder, judge = cpu_decoder(dtype), torch_decoder(tensors=packed_tensors(dtype))
    decoder._keys.fill_(torch.nan)
    decoder._values.fill_(torch.nan)
    slot, other = decoder.admit(job), judge.admit(job)
    for _ in range(job.steps):
        decoder.step()
        judge.step()
    cache = judge._sequences[other].cache
    for ours, theirs in zip(decoder.read_cache(slot), (cache.keys, cache.values), strict=True):
        expected = theirs[:, 0, :, : cache.length]
        assert ours.shape == expected.shape
        atol = 1e-5 if dtype == "float32" else 0.05
        torch.testing.assert_close(ours.float(), expected, atol=atol, rtol=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_request_gets_its_own_tokens_alone_and_in_company(dtype: str) -> None:
    alone = [cpu_decoder(dtype, threads=1).run([fresh(job)])[0] for job in mixed_jobs()]
    jobs, order = mixed_jobs(), [6, 2, 4, 0, 7, 5, 1, 3]
    for n_slots, threads in ((1, 2), (3, 2), (8, 3)):
        together = cpu_decoder(dtype, n_slots=n_slots, threads=threads).run([fresh(jobs[i]) for i in order])
        assert_same(together, [alone[i] for i in order])


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
        logits = torch.from_numpy(decoder._native.logits(slot))
        noise = gumbel_noise_reference(seed, 0, 1, first + i, torch.arange(len(logits)))
        kept = filter_reference(logits, sampling.top_p or 2.0, sampling.top_k or 0)
        assert step.token == job.slices[i % 2][0] + int((kept / sampling.temperature + noise).argmax())


def test_a_likely_stop_token_ends_a_job() -> None:
    """At its probability after temperature, to the digit."""
    job = make_job(4, steps=1, sampling=Sampling(0.8), slices=((0, 50),))
    decoder = cpu_decoder()
    slot = decoder.admit(dataclasses.replace(job, stop=Stop(STOP)))
    decoder.step()
    p = float(torch.from_numpy(decoder._native.logits(slot)).div(0.8).softmax(0)[-1])
    decoder.release(slot)
    for factor, n in ((0.999, 0), (1.001, 1)):
        tokens = decoder.run([dataclasses.replace(fresh(job), stop=Stop(STOP, p * factor))])[0]
        assert len(tokens) == n


def test_seeds_rule_the_draws() -> None:
    decoder = cpu_decoder()
    job = make_job(1, steps=12, sampling=Sampling(1.0))
    first, second = (decoder.run([fresh(job)])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for seed in (2, -1, 2**64 + 2):
        other = decoder.run([dataclasses.replace(job, random=Randomness(seed))])[0]
        assert (first != other).mean() > 0.3
    assert set(first[::2]) <= set(range(50)) and set(first[1::2]) <= set(range(50, 100))
    anew = decoder.run([job, job])
    assert (anew[0] != anew[1]).any(), "one request draws anew in each of its jobs"


def test_without_a_seed_torch_rules() -> None:
    decoder = cpu_decoder()
    job = make_job(1, steps=8, sampling=Sampling(1.0))

    def run() -> np.ndarray:
        torch.manual_seed(5)
        return decoder.run([dataclasses.replace(job, random=Randomness(None))])[0]

    np.testing.assert_array_equal(run(), run())


def test_steps_one_by_one_give_what_a_run_gives() -> None:
    expected = cpu_decoder(n_slots=4).run(mixed_jobs())
    decoder = cpu_decoder(n_slots=4)
    waiting = list(enumerate(mixed_jobs()))
    seated: dict[int, int] = {}
    tokens: dict[int, list[int]] = {i: [] for i, _ in waiting}
    while waiting or seated:
        while waiting and len(seated) < 4:
            i, job = waiting.pop()
            seated[decoder.admit(job)] = i
        for step in decoder.step():
            assert step.error is None
            if step.token is not None:
                tokens[seated[step.slot]].append(step.token)
            if step.done:
                decoder.release(step.slot)
                del seated[step.slot]
    assert_same([np.array(tokens[i]) for i in range(len(expected))], expected)


def test_a_release_in_the_middle_leaves_the_others_alone() -> None:
    decoder = cpu_decoder(n_slots=2)
    job = make_job(2, steps=10, sampling=Sampling(1.0))
    expected = cpu_decoder(n_slots=2).run([fresh(job)])[0]
    doomed, kept = decoder.admit(make_job(1, steps=30)), decoder.admit(fresh(job))
    tokens = [step.token for _ in range(3) for step in decoder.step() if step.slot == kept]
    decoder.release(doomed)
    assert decoder.admit(make_job(3)) == doomed
    while len(tokens) < 10:
        tokens += [step.token for step in decoder.step() if step.slot == kept]
    np.testing.assert_array_equal(tokens, expected)


def test_progress_counts_up_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    tokens = cpu_decoder(n_slots=2).run(mixed_jobs(), on_token=lambda job, n: seen.append((job, n)))
    for job, result in enumerate(tokens):
        counts = [n for j, n in seen if j == job]
        assert counts == sorted(set(counts))
        assert (counts[-1] if counts else 0) == len(result)


class TestPoison:
    """Logits that are not finite fail their request, and no other."""

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_poisoned_request_fails_alone(self, dtype: str) -> None:
        good, bad = make_job(1, steps=6), make_job(2, steps=6)
        bad.prompt[4] = POISON
        expected = cpu_decoder(dtype).run([good])[0]
        decoder = cpu_decoder(dtype, n_slots=2)
        for jobs in ([good, bad, good], [bad, good]):
            results = decoder.run(jobs, keep_errors=True)
            for job, result in zip(jobs, results, strict=True):
                if job is good:
                    np.testing.assert_array_equal(result, expected)
                else:
                    assert isinstance(result, EngineError)
                    assert "coarse network's logits at step 1 are not finite: its weights hold NaN" in str(result)
        with pytest.raises(EngineError, match="not finite"):
            decoder.run([good, bad])

    def test_a_step_reports_the_failure_of_its_slot(self) -> None:
        bad = make_job(2, steps=6)
        bad.prompt[4] = POISON
        decoder = cpu_decoder(n_slots=2)
        slot, other = decoder.admit(bad), decoder.admit(make_job(1))
        steps = {step.slot: step for step in decoder.step()}
        assert steps[slot].done and "step 1" in str(steps[slot].error)
        assert steps[other].token is not None and steps[other].error is None


class TestThreads:
    """Ctrl-C, and more threads than one."""

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
            decoder._native.rest(slot)
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
