"""Jobs on any engine's decoder: greedy tokens equal the torch engine's, and no token depends on the batch."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from barkfast.config import GPTConfig, Layout, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.jobs import Job, Stop
from barkfast.runtime.decoder import Decoder
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows
from contract.networks import STOP, fresh, make_job, mixed_jobs, poisoned, torch_decoder

# Coarse windows that fit the small networks.
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


def assert_same(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Equal tokens for every job."""
    for i, (tokens, same) in enumerate(zip(results, expected, strict=True)):
        np.testing.assert_array_equal(tokens, same, err_msg=f"job {i}")


def make_windows(sampling: Sampling, seed: int = 3) -> CoarseWindows:
    """A clip's coarse windows without a voice; each but the first continues from the cache of the one before."""
    semantic = np.random.default_rng(seed).integers(0, 20, 6)
    return CoarseWindows(semantic, LAYOUT, sampling, random=Randomness(seed))


def run_windows(decoder: Decoder, windows: CoarseWindows, between: Job | None = None) -> np.ndarray:
    """Run the windows and return their codes; the job `between` runs before each of them."""
    while (job := windows.next_job()) is not None:
        if between is not None:
            decoder.run([between])
        windows.append(decoder.run([job])[0])
    return windows.codes()


class DecoderContract:
    """Tests that every engine's decoder must pass; a subclass builds the decoder."""

    config: ClassVar[GPTConfig]

    def make(self, **options: Any) -> Decoder:
        """Build the decoder under test, with one slot and in float32 unless `options` say otherwise."""
        raise NotImplementedError

    def judge(self) -> Decoder:
        """The torch engine with the same weights."""
        return torch_decoder(self.config)

    @pytest.fixture
    def way(self) -> dict[str, Any]:
        """Decoder options that select other code paths and must give the same greedy tokens."""
        return {}

    @pytest.fixture
    def narrow(self) -> dict[str, Any]:
        """Decoder options for narrower number formats, which round."""
        return {}

    @pytest.fixture
    def batched(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Decoder options to run requests one at a time, and those to run them in a batch."""
        return {}, [{"n_slots": 3}]

    def greedy_jobs(self) -> list[Job]:
        return [
            make_job(1),
            make_job(2, length=1, steps=9),
            make_job(3, length=64, steps=8, n_merged=20),
            make_job(4, length=100, steps=9, slices=((50, 100), (0, 50))),
            make_job(5, steps=20, slices=((0, 100),), stop=Stop(STOP)),
            make_job(6, steps=9, slices=((0, 40), (40, 41), (41, 99)), stop=Stop(STOP, 0.2)),
        ]

    def mixed_jobs(self) -> list[Job]:
        return mixed_jobs()

    # --- tokens

    def test_greedy_tokens_are_those_of_the_torch_engine(self, way: dict[str, Any]) -> None:
        expected = self.judge().run(self.greedy_jobs())
        assert len({len(tokens) for tokens in expected}) > 1, "no job ended early: the stop rule is not tested"
        assert_same(self.make(**way).run(self.greedy_jobs()), expected)

    def test_the_last_position_of_the_network_can_be_used(self, way: dict[str, Any]) -> None:
        job = make_job(9, length=self.config.block_size - 3, steps=4)
        assert_same(self.make(**way).run([job]), self.judge().run([job]))

    def test_a_request_gets_its_own_tokens_alone_and_in_a_batch(
        self, batched: tuple[dict[str, Any], list[dict[str, Any]]]
    ) -> None:
        solo, together = batched
        jobs = self.mixed_jobs()
        alone = [self.make(**solo).run([fresh(job)])[0] for job in jobs]
        order = np.random.default_rng(0).permutation(len(jobs))
        for options in together:
            results = self.make(**options).run([fresh(jobs[i]) for i in order])
            assert_same(results, [alone[i] for i in order])

    def test_seeds_rule_the_draws(self) -> None:
        decoder, job = self.make(), make_job(1, steps=8, sampling=Sampling(1.0))
        first, second = (decoder.run([fresh(job)])[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        for seed in (2, -1, 2**64 + 2):
            other = decoder.run([dataclasses.replace(job, random=Randomness(seed))])[0]
            assert (first != other).mean() > 0.3
        assert set(first[::2]) <= set(range(50)) and set(first[1::2]) <= set(range(50, 100))

    def test_one_request_draws_anew_in_each_of_its_jobs(self) -> None:
        job = make_job(1, steps=8, sampling=Sampling(1.0))
        first, second = self.make().run([job, job])
        assert (first != second).any()

    def test_without_a_seed_torch_rules(self) -> None:
        decoder = self.make()

        def run() -> np.ndarray:
            torch.manual_seed(5)
            return decoder.run([make_job(None, steps=8, sampling=Sampling(1.0))])[0]

        np.testing.assert_array_equal(run(), run())

    def test_a_top_k_beyond_32_bits_is_as_good_as_none(self) -> None:
        huge, none = (make_job(1, steps=4, sampling=Sampling(1.0, top_k=k)) for k in (2**40, None))
        decoder = self.make()
        assert_same(decoder.run([huge]), decoder.run([none]))

    # --- steps

    def test_steps_of_one_token_and_of_several_give_what_a_run_gives(self) -> None:
        jobs = self.mixed_jobs()
        expected = self.make(n_slots=4).run([fresh(job) for job in jobs])
        decoder, waiting = self.make(n_slots=4), list(enumerate(jobs))
        slots: dict[int, int] = {}
        tokens: list[list[int]] = [[] for _ in jobs]
        seconds = itertools.cycle((0.0, 0.01))
        while waiting or slots:
            while waiting and len(slots) < 4:
                i, job = waiting.pop()
                slots[decoder.admit(job)] = i
            for step in decoder.step(next(seconds)):
                assert step.error is None
                if step.token is not None:
                    tokens[slots[step.slot]].append(step.token)
                if step.done:
                    decoder.release(step.slot)
                    del slots[step.slot]
        assert_same([np.array(t) for t in tokens], expected)

    def test_a_release_in_the_middle_leaves_the_others_alone(self) -> None:
        job = make_job(2, steps=10, sampling=Sampling(1.0))
        expected = self.make(n_slots=2).run([fresh(job)])[0]
        decoder = self.make(n_slots=2)
        doomed, kept = decoder.admit(make_job(1, steps=30)), decoder.admit(fresh(job))
        tokens = [step.token for _ in range(3) for step in decoder.step() if step.slot == kept]
        decoder.release(doomed)
        assert decoder.admit(make_job(3)) == doomed
        while len(tokens) < 10:
            tokens += [step.token for step in decoder.step() if step.slot == kept]
        np.testing.assert_array_equal(tokens, expected)

    def test_progress_counts_up_to_the_end(self) -> None:
        seen: list[tuple[int, int]] = []
        tokens = self.make(n_slots=2).run(self.mixed_jobs(), on_token=lambda job, n: seen.append((job, n)))
        for job, result in enumerate(tokens):
            counts = [n for j, n in seen if j == job]
            assert counts == sorted(set(counts))
            assert (counts[-1] if counts else 0) == len(result)

    # --- windows that continue from the cache of the window before

    def test_greedy_windows_equal_the_torch_engines(self, way: dict[str, Any]) -> None:
        codes = run_windows(self.make(**way), make_windows(Sampling(0.0)))
        np.testing.assert_array_equal(codes, run_windows(self.judge(), make_windows(Sampling(0.0))))

    def test_an_extension_reads_no_prompt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder, reads = self.make(), []
        read = decoder._read_prompt
        monkeypatch.setattr(decoder, "_read_prompt", lambda *args: (reads.append(args), read(*args))[1])
        windows, extended = make_windows(Sampling(0.0)), 0
        while (job := windows.next_job()) is not None:
            extended += job.continues_from is not None
            windows.append(decoder.run([job])[0])
        assert extended >= 2
        assert len(reads) == windows.n_windows - extended

    def test_a_cache_that_was_lost_is_made_again_the_same(self, narrow: dict[str, Any]) -> None:
        kept = run_windows(self.make(**narrow), make_windows(Sampling(0.9)))
        # The only slot goes to another job between the windows.
        lost = run_windows(self.make(**narrow), make_windows(Sampling(0.9)), between=make_job(1, steps=3))
        np.testing.assert_array_equal(lost, kept)

    def test_chains_side_by_side_equal_chains_alone(self) -> None:
        alone = [run_windows(self.make(n_slots=2), make_windows(Sampling(0.9), seed)) for seed in (3, 4)]
        decoder, chains = self.make(n_slots=2), [make_windows(Sampling(0.9), seed) for seed in (3, 4)]
        while any(jobs := [windows.next_job() for windows in chains]):
            for windows, tokens in zip(chains, decoder.run(jobs), strict=True):
                windows.append(tokens)
        assert_same([windows.codes() for windows in chains], alone)

    # --- a request that fails does not affect the others

    def test_a_poisoned_request_fails_alone(self, way: dict[str, Any]) -> None:
        good, bad = make_job(1, steps=6), poisoned(make_job(2, steps=6))
        options = way | {"n_slots": max(2, way.get("n_slots", 1))}
        expected = self.make(**options).run([good])[0]
        decoder = self.make(**options)
        for jobs in ([good, bad, good], [bad, good]):
            for job, result in zip(jobs, decoder.run_each(jobs), strict=True):
                if job is good:
                    np.testing.assert_array_equal(result, expected)
                else:
                    assert isinstance(result, EngineError)
                    assert "coarse network's logits at step 1 are not finite: its weights hold NaN" in str(result)
        with pytest.raises(EngineError, match="not finite"):
            decoder.run([good, bad])

    @pytest.mark.parametrize("seconds", [0.0, 0.01])
    def test_a_step_reports_the_failure_of_its_slot(self, seconds: float) -> None:
        decoder = self.make(n_slots=2)
        slot, other = decoder.admit(poisoned(make_job(2))), decoder.admit(make_job(1))
        steps = {step.slot: step for step in decoder.step(seconds)}
        assert steps[slot].done and "step 1" in str(steps[slot].error)
        assert steps[other].token is not None and steps[other].error is None

    # --- impossible jobs are refused with the value and the remedy

    def test_slots(self) -> None:
        for n in (0, 65):
            with pytest.raises(InputError, match=f"n_slots is {n}; expected 1 to 64"):
                self.make(n_slots=n)

    def test_more_jobs_than_slots(self) -> None:
        decoder = self.make(n_slots=2)
        slots = [decoder.admit(make_job(i)) for i in range(2)]
        with pytest.raises(EngineError, match="all 2 slots of the coarse network are taken"):
            decoder.admit(make_job(3))
        with pytest.raises(EngineError, match="other jobs are admitted"):
            decoder.run([make_job(3)])
        for slot in slots:
            decoder.release(slot)
        decoder.run([make_job(3)])

    def test_jobs_that_no_network_can_run(self) -> None:
        size, vocabulary = self.config.block_size, self.config.input_vocab_size
        outside = make_job(1)
        outside.prompt[3] = vocabulary
        bad = [
            (make_job(1, length=size - 3, steps=5), f"need {size + 1} positions"),
            (make_job(1, length=0), "expected at least one of each"),
            (make_job(1, steps=0), "expected at least one of each"),
            (make_job(1, length=20, n_merged=20), "expected at least one of each"),
            (outside, f"do not fit the network's vocabulary of {vocabulary}"),
        ]
        decoder = self.make()
        for job, message in bad:
            with pytest.raises(InputError, match=message):
                decoder.admit(job)
        *errors, tokens = decoder.run_each([job for job, _ in bad] + [make_job(1)])
        assert [type(error) for error in errors] == [InputError] * len(bad)
        assert_same([tokens], self.judge().run([make_job(1)]))
