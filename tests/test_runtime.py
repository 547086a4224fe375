"""The plain torch engine fulfils the contract: jobs in, tokens out, single or batched."""

import dataclasses

import numpy as np
import pytest
import torch

from barkfast.config import FineConfig, GPTConfig, Layout, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.jobs import FineJob, Job, Stop
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT, KVCache
from barkfast.runtime.sampling import Randomness
from barkfast.runtime.torch_ import TorchDecoder, TorchRefiner
from barkfast.stages.coarse import CoarseWindows

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, input_vocab_size=300, output_vocab_size=300, block_size=128)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG).requires_grad_(False).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def make_job(seed: int | None = 1, **changes: object) -> Job:
    prompt = np.arange(3, 23, dtype=np.int32)
    job = Job(prompt, steps=30, slices=((0, 200),), sampling=Sampling(1.0), random=Randomness(seed))
    return dataclasses.replace(job, **changes)


def run_one(decoder: TorchDecoder, job: Job) -> np.ndarray:
    return decoder.run([job])[0]


def test_cached_steps_equal_a_fresh_forward_pass_over_everything(model: GPT) -> None:
    tokens = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(3))
    cache = KVCache(CONFIG, device=torch.device("cpu"), dtype=torch.float32)
    model(tokens[:, :30], cache)
    for i in range(30, 40):
        stepped = model.logits(model(tokens[:, i : i + 1], cache), 0, 300)
        fresh_cache = KVCache(CONFIG, device=torch.device("cpu"), dtype=torch.float32)
        fresh = model.logits(model(tokens[:, : i + 1], fresh_cache), 0, 300)
        torch.testing.assert_close(stepped, fresh, atol=1e-5, rtol=1e-5)


def test_a_slice_of_the_head_has_the_bits_of_the_whole_head(model: GPT) -> None:
    hidden = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(4))
    whole = model.logits(hidden, 0, 300)
    for first, end in ((0, 300), (0, 201), (64, 128), (200, 264), (17, 81)):
        assert torch.equal(model.logits(hidden, first, end), whole[:, first:end]), (first, end)


def test_tokens_stay_in_their_cyclic_slices(model: GPT) -> None:
    tokens = run_one(TorchDecoder(model), make_job(slices=((100, 150), (150, 200), (0, 7))))
    low, high = np.array([100, 150, 0]), np.array([150, 200, 7])
    position = np.arange(len(tokens)) % 3
    assert ((tokens >= low[position]) & (tokens < high[position])).all()


def test_interleaved_jobs_get_the_tokens_they_get_alone(model: GPT) -> None:
    jobs = [make_job(seed, steps=10 + seed, prompt=np.arange(seed, seed + 9, dtype=np.int32)) for seed in range(4)]
    alone = [run_one(TorchDecoder(model), dataclasses.replace(job, random=Randomness(i))) for i, job in enumerate(jobs)]
    decoder, together, slots = TorchDecoder(model), {i: [] for i in range(4)}, {}
    arrivals = {0: [0], 2: [1, 2], 7: [3]}  # step -> jobs that come in before it
    for n in range(40):
        for i in arrivals.get(n, []):
            slots[decoder.admit(dataclasses.replace(jobs[i], random=Randomness(i)))] = i
        for step in decoder.step():
            together[slots[step.slot]].append(step.token)
            if step.done:
                decoder.release(step.slot)
                del slots[step.slot]
    assert all(np.array_equal(alone[i], together[i]) for i in range(4))
    assert decoder.step() == []


def test_a_released_job_ends_and_its_slot_serves_another(model: GPT) -> None:
    decoder = TorchDecoder(model)
    slot = decoder.admit(make_job())
    decoder.step()
    decoder.release(slot)
    assert decoder.step() == []
    assert np.array_equal(run_one(decoder, make_job()), run_one(TorchDecoder(model), make_job()))


def test_run_does_not_swallow_the_tokens_of_admitted_jobs(model: GPT) -> None:
    decoder = TorchDecoder(model)
    decoder.admit(make_job())
    with pytest.raises(EngineError, match="other jobs"):
        decoder.run([make_job()])


@pytest.mark.parametrize("stop_token", [200, 250])
def test_the_stop_token_ends_a_job_and_is_not_part_of_it(model: GPT, stop_token: int) -> None:
    free = run_one(TorchDecoder(model), make_job(steps=100))
    lengths = set()
    for seed in range(20):
        job = make_job(seed, steps=100, slices=((180, 200),), stop=Stop(stop_token), sampling=Sampling(3.0))
        tokens = run_one(TorchDecoder(model), job)
        assert ((tokens >= 180) & (tokens < 200)).all()
        lengths.add(len(tokens))
    assert len(free) == 100
    assert len(lengths) > 3, "the stop token was hardly ever drawn"


def test_min_p_stops_as_soon_as_the_stop_token_is_that_likely(model: GPT) -> None:
    tokens = run_one(TorchDecoder(model), make_job(steps=100, stop=Stop(200, min_p=0.0)))
    assert len(tokens) == 0
    never = run_one(TorchDecoder(model), make_job(steps=50, stop=Stop(200, min_p=1.1), sampling=Sampling(top_k=1)))
    without = run_one(TorchDecoder(model), make_job(steps=50, stop=Stop(200), sampling=Sampling(top_k=1)))
    assert np.array_equal(never, without)


def test_greedy_takes_the_largest_logit_and_no_random_number(model: GPT) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    greedy = run_one(TorchDecoder(model), make_job(None, sampling=Sampling(0)))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(greedy, run_one(TorchDecoder(model), make_job(None, sampling=Sampling(None))))
    assert np.array_equal(greedy, run_one(TorchDecoder(model), make_job(7, sampling=Sampling(1.0, top_k=1))))


def test_a_seed_leaves_the_global_generator_alone_and_equals_manual_seed(model: GPT) -> None:
    torch.manual_seed(11)
    globally = run_one(TorchDecoder(model), make_job(None))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    seeded = run_one(TorchDecoder(model), make_job(11))
    assert np.array_equal(globally, seeded)
    assert torch.equal(before, torch.get_rng_state())


class CountingGPT(GPT):
    """A GPT that records the number of tokens of each call."""

    def forward(self, tokens: torch.Tensor, cache: KVCache, n_merged: int = 0) -> torch.Tensor:
        self.lengths = [*getattr(self, "lengths", []), tokens.shape[1]]
        return super().forward(tokens, cache, n_merged)


def coarse_model() -> CountingGPT:
    torch.manual_seed(1)
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, input_vocab_size=12_096, output_vocab_size=12_096)
    return CountingGPT(config).requires_grad_(False).eval()


def generate_coarse(decoder: TorchDecoder, *, between: Job | None = None) -> np.ndarray:
    windows = CoarseWindows(np.arange(60), Layout(), Sampling(0.7), random=Randomness(2))
    while (job := windows.next_job()) is not None:
        windows.append(decoder.run([job])[0])
        if between is not None:
            decoder.run([between])
    return windows.codes()


def test_reuse_prefix_feeds_every_token_once_and_changes_no_token() -> None:
    model = coarse_model()
    expected = generate_coarse(TorchDecoder(model, reuse_prefix=False))
    prefills = [n for n in model.lengths if n > 1]
    assert prefills == [257, 317, 377]
    model.lengths = []
    assert np.array_equal(generate_coarse(TorchDecoder(model, reuse_prefix=True)), expected)
    assert [n for n in model.lengths if n > 1] == [257]
    assert len(model.lengths) == expected.size


def test_reuse_prefix_never_continues_a_cache_that_another_job_has_used() -> None:
    model = coarse_model()
    other = Job(np.arange(9, dtype=np.int32), 3, ((0, 99),), Sampling(0))
    expected = generate_coarse(TorchDecoder(model, reuse_prefix=False))
    assert np.array_equal(generate_coarse(TorchDecoder(model, reuse_prefix=True), between=other), expected)


def test_reuse_prefix_is_on_only_below_float32() -> None:
    assert not TorchDecoder(GPT(CONFIG)).reuse_prefix
    assert TorchDecoder(GPT(CONFIG).bfloat16()).reuse_prefix


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_logits_stay_close(model: GPT, dtype: torch.dtype, bound: float) -> None:
    # bounds: a few units of the dtype's rounding (2^-9 and 2^-12) through two layers
    tokens = torch.arange(40)[None]
    device = torch.device("cpu")
    exact = model.logits(model(tokens, KVCache(CONFIG, device=device, dtype=torch.float32)), 0, 300)
    half_model = GPT(CONFIG)
    half_model.load_state_dict(model.state_dict())
    half_model = half_model.to(dtype)
    half = half_model.logits(half_model(tokens, KVCache(CONFIG, device=device, dtype=dtype)), 0, 300).float()
    assert ((half - exact).pow(2).mean() / exact.pow(2).mean()).sqrt() < bound


def test_a_context_beyond_the_positions_is_refused_before_any_work(model: GPT) -> None:
    with pytest.raises(InputError, match="129 positions"):
        TorchDecoder(model).admit(make_job(steps=110))
    run_one(TorchDecoder(model), make_job(steps=109))


def test_ids_outside_the_vocabulary_are_refused(model: GPT) -> None:
    with pytest.raises(InputError, match=r"5\.\.300 .* 300"):
        TorchDecoder(model).admit(make_job(prompt=np.array([5, 300], dtype=np.int32)))


def test_weights_that_are_not_finite_raise_instead_of_speaking(model: GPT) -> None:
    broken = GPT(CONFIG).requires_grad_(False)
    broken.load_state_dict(model.state_dict())
    broken.transformer.ln_f.weight[3] = torch.nan
    with pytest.raises(EngineError, match="not finite"):
        run_one(TorchDecoder(broken), make_job())


def test_jobs_without_anything_to_read_or_draw_are_refused(model: GPT) -> None:
    prompt = np.arange(20, dtype=np.int32)
    for job in (make_job(prompt=prompt[:0]), make_job(steps=0), make_job(prompt=prompt, n_merged=20)):
        with pytest.raises(InputError, match="expected at least one of each"):
            TorchDecoder(model).admit(job)


def test_a_step_reports_the_failure_of_its_slot(model: GPT) -> None:
    broken = GPT(CONFIG).requires_grad_(False)
    broken.load_state_dict(model.state_dict())
    broken.transformer.wte.weight[299] = torch.nan
    decoder = TorchDecoder(broken, stage="coarse")
    slot, other = decoder.admit(make_job(prompt=np.array([299], np.int32))), decoder.admit(make_job())
    steps = {step.slot: step for step in decoder.step()}
    assert steps[slot].done and "coarse network's logits at step 1" in str(steps[slot].error)
    assert steps[other].token is not None and steps[other].error is None


def test_the_refiner_fills_only_what_it_is_asked_to() -> None:
    torch.manual_seed(2)
    model = FineGPT(FineConfig(n_layer=1, n_head=2, n_embd=32)).requires_grad_(False).eval()
    window = np.random.default_rng(0).integers(0, 1024, (64, 8)).astype(np.int32)
    window[40:, 3:] = 1024
    for temperature in (0.5, None):
        job = FineJob(window, 40, 3, 1024, Sampling(temperature), Randomness(0))
        filled = TorchRefiner(model).refine(job)
        assert np.array_equal(filled[:40], window[:40])
        assert np.array_equal(filled[:, :3], window[:, :3])
        assert (filled[40:, 3:] < 1024).all()
        assert (window[40:, 3:] == 1024).all(), "the job's own window was written to"
