"""Jobs on the GPU engine: the torch engine's greedy tokens, and each request's own tokens in any company."""

import dataclasses

import numpy as np
import pytest
import torch

from barkfast.config import Layout, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.jobs import Job, Stop
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.decoder import Decoder
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows
from cuda_engine.networks import (
    CONFIG,
    DEVICE,
    POISON,
    STOP,
    cuda_decoder,
    gpt_tensors,
    make_job,
    mixed_jobs,
    torch_decoder,
)

# Up to 8 slots multiply row by row, more with matrix instructions.
WAYS = pytest.mark.parametrize("n_slots", [1, 16], ids=["vector", "matrix"])


def fresh(job: Job) -> Job:
    """The same request again, with random numbers from the start."""
    return dataclasses.replace(job, random=Randomness(job.random.seed))


@WAYS
def test_greedy_tokens_are_those_of_the_torch_engine(n_slots: int) -> None:
    jobs = [
        make_job(1),
        make_job(2, length=1, steps=9),
        make_job(3, length=64, steps=8, merged=20),
        make_job(4, length=100, steps=9, slices=((50, 100), (0, 50))),
        make_job(5, steps=20, slices=((0, 100),), stop=Stop(STOP)),
        make_job(6, steps=9, slices=((0, 40), (40, 41), (41, 99)), stop=Stop(STOP, 0.2)),
    ]
    expected = torch_decoder().run(jobs)
    assert len({len(tokens) for tokens in expected}) > 1, "no job ended early: the stop rule is not tested"
    for tokens, same in zip(cuda_decoder(n_slots=n_slots).run(jobs), expected, strict=True):
        np.testing.assert_array_equal(tokens, same)


@WAYS
def test_the_last_position_of_the_network_can_be_used(n_slots: int) -> None:
    job = make_job(9, length=CONFIG.block_size - 3, steps=4)
    np.testing.assert_array_equal(cuda_decoder(n_slots=n_slots).run([job])[0], torch_decoder().run([job])[0])


# Both dtypes in both ways where a token does not cost a third of a second.
CASES = [(3, torch.float16), (16, torch.float32)]
CASES += [] if DEVICE.type == "cpu" else [(3, torch.float32), (3, torch.bfloat16), (16, torch.float16)]


@pytest.mark.parametrize(("n_slots", "dtype"), CASES, ids=str)
def test_a_request_gets_its_own_tokens_alone_and_in_company(n_slots: int, dtype: torch.dtype) -> None:
    alone = [cuda_decoder(dtype, n_slots=n_slots).run([fresh(job)])[0] for job in mixed_jobs()]
    jobs = mixed_jobs()
    order = [6, 2, 4, 0, 5, 1, 3]
    together = cuda_decoder(dtype, n_slots=n_slots).run([jobs[i] for i in order])
    for i, tokens in zip(order, together, strict=True):
        np.testing.assert_array_equal(tokens, alone[i], err_msg=f"job {i}")


def test_few_slots_and_one_slot_give_the_same_tokens() -> None:
    one, many = (cuda_decoder(n_slots=n).run(mixed_jobs()[3:6]) for n in (1, 8))
    for tokens, same in zip(one, many, strict=True):
        np.testing.assert_array_equal(tokens, same)


@pytest.mark.parametrize("n_slots", [3, 5, 12])
def test_no_launch_has_more_rows_than_there_are_slots(n_slots: int) -> None:
    """Scratch has a row per slot, and kernels do not look where it ends."""
    from barkfast_kernels.launch import recording

    decoder = cuda_decoder(n_slots=n_slots)
    with recording() as launches:
        for i in range(n_slots):
            decoder.admit(make_job(i))
        decoder.launch(range(n_slots), 1)
    batches = {launch.args["batch"] for launch in launches if "batch" in launch.args}
    assert max(batches) == n_slots


def test_a_top_k_beyond_32_bits_is_as_good_as_none() -> None:
    huge, none = (make_job(1, steps=4, sampling=Sampling(1.0, top_k=k)) for k in (2**40, None))
    decoder = cuda_decoder()
    np.testing.assert_array_equal(decoder.run([huge])[0], decoder.run([none])[0])


def test_seeds_rule_the_draws() -> None:
    decoder = cuda_decoder()
    job = make_job(1, steps=12, sampling=Sampling(1.0))
    first, second = (decoder.run([fresh(job)])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = decoder.run([dataclasses.replace(job, random=Randomness(2))])[0]
    assert (first != other).mean() > 0.3
    assert set(first[::2]) <= set(range(50)) and set(first[1::2]) <= set(range(50, 100))


def test_one_request_draws_anew_in_each_of_its_jobs() -> None:
    decoder = cuda_decoder()
    random = Randomness(7)
    job = make_job(1, steps=8, sampling=Sampling(1.0))
    first, second = (decoder.run([dataclasses.replace(job, random=random)])[0] for _ in range(2))
    assert (first != second).any()


def test_without_a_seed_torch_rules() -> None:
    decoder = cuda_decoder()
    job = make_job(1, steps=8, sampling=Sampling(1.0))

    def run() -> np.ndarray:
        torch.manual_seed(5)
        return decoder.run([dataclasses.replace(job, random=Randomness(None))])[0]

    np.testing.assert_array_equal(run(), run())


def test_steps_one_by_one_give_what_a_run_gives() -> None:
    expected = cuda_decoder(n_slots=4).run(mixed_jobs())
    decoder = cuda_decoder(n_slots=4)
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
    for i, same in enumerate(expected):
        np.testing.assert_array_equal(tokens[i], same)


def test_a_release_in_the_middle_leaves_the_others_alone() -> None:
    decoder = cuda_decoder(n_slots=2)
    job = make_job(2, steps=10, sampling=Sampling(1.0))
    expected = cuda_decoder(n_slots=2).run([fresh(job)])[0]
    doomed, kept = decoder.admit(make_job(1, steps=30)), decoder.admit(fresh(job))
    tokens = [step.token for _ in range(3) for step in decoder.step() if step.slot == kept]
    decoder.release(doomed)
    assert decoder.admit(make_job(3)) == doomed
    while len(tokens) < 10:
        tokens += [step.token for step in decoder.step() if step.slot == kept]
    np.testing.assert_array_equal(tokens, expected)


class TestExtension:
    """Coarse windows without a voice continue each other's caches."""

    LAYOUT = Layout.from_generation_config(
        {
            "semantic_config": {"semantic_vocab_size": 20, "eos_token_id": 20, "semantic_rate_hz": 49.9},
            "coarse_acoustics_config": {
                "coarse_semantic_pad_token": 110,
                "coarse_infer_token": 111,
                "max_coarse_input_length": 24,
                "max_coarse_history": 60,
                "sliding_window_len": 6,
            },
            "codebook_size": 40,
        }
    )

    def windows(self, sampling: Sampling, seed: int = 3) -> CoarseWindows:
        semantic = np.random.default_rng(seed).integers(0, 20, 6)
        return CoarseWindows(semantic, self.LAYOUT, sampling, random=Randomness(seed))

    def chain(
        self, decoder: Decoder, sampling: Sampling, seed: int = 3, between: Job | None = None
    ) -> tuple[np.ndarray, int]:
        """Codes, and how many of the windows extend the one before."""
        windows, extended = self.windows(sampling, seed), 0
        while (job := windows.next_job()) is not None:
            extended += job.extends is not None
            if between is not None:
                decoder.run([between])
            windows.append(decoder.run([job])[0])
        return windows.codes(), extended

    @WAYS
    def test_greedy_windows_equal_the_torch_engines(self, n_slots: int) -> None:
        codes, extended = self.chain(cuda_decoder(n_slots=n_slots), Sampling(0.0))
        assert extended >= 2
        np.testing.assert_array_equal(codes, self.chain(torch_decoder(), Sampling(0.0))[0])

    def test_an_extension_reads_no_prompt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = cuda_decoder()
        reads = []
        read = CudaDecoder._read_prompt
        monkeypatch.setattr(CudaDecoder, "_read_prompt", lambda self, *a: (reads.append(a), read(self, *a))[1])
        _, extended = self.chain(decoder, Sampling(0.0))
        windows = self.windows(Sampling(0.0)).n_windows
        assert len(reads) == windows - extended

    def test_a_cache_that_was_lost_is_made_again_the_same(self) -> None:
        kept, _ = self.chain(cuda_decoder(torch.float16), Sampling(0.9))
        # The only slot goes to another job between the windows.
        lost, _ = self.chain(cuda_decoder(torch.float16), Sampling(0.9), between=make_job(1, steps=3))
        np.testing.assert_array_equal(lost, kept)

    def test_chains_side_by_side_equal_chains_alone(self) -> None:
        alone = [self.chain(cuda_decoder(n_slots=2), Sampling(0.9), seed)[0] for seed in (3, 4)]
        decoder = cuda_decoder(n_slots=2)
        chains = [self.windows(Sampling(0.9), seed) for seed in (3, 4)]
        while any(jobs := [windows.next_job() for windows in chains]):
            for windows, tokens in zip(chains, decoder.run(jobs), strict=True):
                windows.append(tokens)
        for windows, codes in zip(chains, alone, strict=True):
            np.testing.assert_array_equal(windows.codes(), codes)


def test_int8_matrices_compute_what_their_rounded_weights_say() -> None:
    from barkfast.runtime.cuda.network import quantize

    rounded = dict(gpt_tensors())
    for name, tensor in rounded.items():
        if ".h." in name and tensor.dim() == 2:
            weight, scale = quantize(tensor)
            assert weight.dtype == torch.int8
            rounded[name] = weight.float() * scale[:, None]
            assert 0 < (rounded[name] - tensor).abs().max() <= scale.max() * 0.501
    jobs = [make_job(1, steps=8), make_job(3, length=64, steps=6)]
    expected = torch_decoder(tensors=rounded).run(jobs)
    for n_slots in (1, 16):
        decoder = cuda_decoder(n_slots=n_slots, int8=True)
        for tokens, same in zip(decoder.run(jobs), expected, strict=True):
            np.testing.assert_array_equal(tokens, same)


@WAYS
def test_a_poisoned_request_fails_alone(n_slots: int) -> None:
    good, bad = make_job(1, steps=6), make_job(2, steps=6)
    bad.prompt[4] = POISON
    expected = torch_decoder().run([good])[0]
    decoder = cuda_decoder(n_slots=max(2, n_slots))
    for jobs in ([good, bad, good], [bad, good]):
        results = decoder.run(jobs, keep_errors=True)
        for job, result in zip(jobs, results, strict=True):
            if job is good:
                np.testing.assert_array_equal(result, expected)
            else:
                assert isinstance(result, EngineError)
                assert "coarse network's logits at step 1" in str(result)
    with pytest.raises(EngineError, match="not finite"):
        decoder.run([good, bad])


def test_a_step_reports_the_failure_of_its_slot() -> None:
    bad = make_job(2, steps=6)
    bad.prompt[4] = POISON
    for decoder in (cuda_decoder(n_slots=2), torch_decoder()):
        slot, other = decoder.admit(bad), decoder.admit(make_job(1))
        steps = {step.slot: step for step in decoder.step()}
        assert steps[slot].done and "step 1" in str(steps[slot].error)
        assert steps[other].token is not None and steps[other].error is None
        decoder.release(slot)
        decoder.release(other)


def test_progress_counts_up_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    tokens = cuda_decoder(n_slots=2).run(mixed_jobs(), on_token=lambda job, n: seen.append((job, n)))
    for job, result in enumerate(tokens):
        counts = [n for j, n in seen if j == job]
        assert counts == sorted(set(counts))
        assert (counts[-1] if counts else 0) == len(result)


class TestRefusals:
    """What cannot be run is refused with the value and the remedy, before anything is launched."""

    def test_slots(self) -> None:
        for n in (0, 65):
            with pytest.raises(InputError, match=f"n_slots is {n}; expected 1 to 64"):
                cuda_decoder(n_slots=n)

    def test_more_jobs_than_slots(self) -> None:
        decoder = cuda_decoder(n_slots=2)
        slots = [decoder.admit(make_job(i)) for i in range(2)]
        with pytest.raises(EngineError, match="all 2 slots of the coarse network are taken"):
            decoder.admit(make_job(3))
        with pytest.raises(EngineError, match="other jobs are admitted"):
            decoder.run([make_job(3)])
        for slot in slots:
            decoder.release(slot)
        decoder.run([make_job(3)])

    def test_a_context_past_the_end(self) -> None:
        job = make_job(1, length=CONFIG.block_size - 3, steps=5)
        with pytest.raises(InputError, match=f"need {CONFIG.block_size + 1} positions"):
            cuda_decoder().admit(job)

    def test_nothing_to_read_or_to_draw(self) -> None:
        for decoder in (cuda_decoder(), torch_decoder()):
            for job in (make_job(1, length=0), make_job(1, steps=0), make_job(1, length=20, merged=20)):
                with pytest.raises(InputError, match="expected at least one of each"):
                    decoder.admit(job)

    def test_an_admission_that_fails_leaves_its_slot_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = cuda_decoder()
        with monkeypatch.context() as patch:
            patch.setattr(decoder._prefill, "run", lambda length: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                decoder.admit(make_job(1))
        np.testing.assert_array_equal(decoder.run([make_job(1)])[0], torch_decoder().run([make_job(1)])[0])

    def test_tokens_outside_the_vocabulary(self) -> None:
        job = make_job(1)
        job.prompt[3] = 120
        with pytest.raises(InputError, match=r"do not fit the network's vocabulary of 120"):
            cuda_decoder().admit(job)

    def test_a_refused_job_leaves_the_others_alone(self) -> None:
        good, bad = make_job(1), make_job(1, length=CONFIG.block_size)
        results = cuda_decoder().run([bad, good], keep_errors=True)
        assert isinstance(results[0], InputError)
        np.testing.assert_array_equal(results[1], cuda_decoder().run([good])[0])

    def test_other_slices_beside_running_jobs(self) -> None:
        decoder = cuda_decoder(n_slots=2)
        slot = decoder.admit(make_job(1))
        with pytest.raises(EngineError, match="cannot run beside"):
            decoder.admit(make_job(2, slices=((0, 30),)))
        decoder.release(slot)
        # One after the other is fine, and run() sees to it.
        jobs = [make_job(1), make_job(2, slices=((0, 30),)), make_job(3)]
        for tokens, same in zip(decoder.run(jobs), torch_decoder().run(jobs), strict=True):
            np.testing.assert_array_equal(tokens, same)


def test_everything_is_on_the_device() -> None:
    assert cuda_decoder().state.keys.device == DEVICE
