"""The fine network in native code, against the torch engine."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from barkfast.config import FineConfig, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.jobs import FineJob
from barkfast.models.fine import FineGPT
from barkfast.runtime.cpu.packing import pack_network, unpack_matrix
from barkfast.runtime.cpu.refiner import CpuRefiner
from barkfast.runtime.sampling import STAGE_KEYS, Randomness
from barkfast.runtime.torch_ import TorchRefiner
from barkfast_kernels.random.reference import gumbel_noise_reference
from contract.networks import fine_tensors
from cpu_engine.networks import isas, make_pool, needs_native
from ops.tools import rms_error

pytestmark = needs_native

N_IDS = 38
# Heads 16, 32 and 64 wide.
SMALL = FineConfig(2, 4, 64, 40, 40, 130, bias=True, n_codes_total=4, n_codes_given=1)
CONFIGS = {
    "16": SMALL,
    "32": dataclasses.replace(SMALL, n_head=3, n_embd=96, bias=False),
    "64": dataclasses.replace(SMALL, n_head=2, n_embd=128, n_codes_given=2),
}
MIDDLE = FineConfig(4, 4, 256, 40, 40, 320, bias=False, n_codes_total=4, n_codes_given=1)
# See test_prefill.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 3e-2}


def model_of(config: FineConfig, tensors: dict[str, Tensor] | None = None) -> FineGPT:
    model = FineGPT(config).requires_grad_(False).eval()
    model.load_state_dict(tensors or fine_tensors(config))
    if tensors is None:
        model.tie()
    return model


def torch_refiner(config: FineConfig = SMALL) -> TorchRefiner:
    return TorchRefiner(model_of(config))


def cpu_refiner(
    config: FineConfig = SMALL,
    dtype: str = "float32",
    *,
    threads: int = 2,
    isa: str = "",
    tensors: dict[str, Tensor] | None = None,
) -> CpuRefiner:
    packed = pack_network(config, tensors or fine_tensors(config), dtype, what="the network under test")
    return CpuRefiner(config, packed, pool=make_pool(threads), dtype=dtype, isa=isa)


def make_job(
    first_frame: int = 0,
    frames: int = 32,
    *,
    sampling: Sampling = Sampling(0.0),
    seed: int = 1,
    first_codebook: int = 2,
    config: FineConfig = SMALL,
) -> FineJob:
    window = np.random.default_rng(5).integers(0, N_IDS, (frames, config.n_codes_total)).astype(np.int32)
    window[first_frame:, first_codebook:] = N_IDS
    return FineJob(window, first_frame, first_codebook, N_IDS, sampling, Randomness(seed))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("frames, first_frame", [(1, 0), (32, 0), (33, 5), (97, 96), (130, 47)])
def test_greedy_codes_are_those_of_the_torch_engine(
    frames: int, first_frame: int, config: FineConfig, isa: str
) -> None:
    job = make_job(first_frame, frames)
    filled = cpu_refiner(config, isa=isa).refine(job)
    np.testing.assert_array_equal(filled, torch_refiner(config).refine(job))
    assert filled.dtype == np.int32
    np.testing.assert_array_equal(filled[:first_frame], job.window[:first_frame])
    np.testing.assert_array_equal(filled[:, :2], job.window[:, :2])
    assert (job.window[first_frame:, 2:] == N_IDS).all(), "the job's own window was written to"


def test_every_codebook_but_the_given_ones_can_be_predicted() -> None:
    job = make_job(first_codebook=1)
    np.testing.assert_array_equal(cpu_refiner().refine(job), torch_refiner().refine(job))


def test_nothing_to_fill_leaves_the_window_as_it_is() -> None:
    for job in (make_job(32), make_job(first_codebook=4)):
        np.testing.assert_array_equal(cpu_refiner().refine(job), job.window)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("config, frames", [(SMALL, 99), (MIDDLE, 301)], ids=["small", "middle"])
def test_logits_are_close_to_those_of_torch(config: FineConfig, frames: int, dtype: str, isa: str) -> None:
    window = make_job(frames=frames).window
    refiner, model = cpu_refiner(config, dtype, isa=isa), model_of(config)
    for codebook in (1, 3):
        actual = torch.from_numpy(refiner.logits(window, codebook))
        expected = model(torch.from_numpy(window.astype(np.int64))[None], codebook)[0]
        assert rms_error(actual, expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("isa", isas())
def test_int4_is_close_to_what_its_weights_stand_for(isa: str) -> None:
    packed = pack_network(MIDDLE, fine_tensors(MIDDLE), "int4", what="the network under test")
    tensors = {
        name: unpack_matrix(packed, name) if kind == "matrix" else fine_tensors(MIDDLE)[name]
        for name, kind, *_ in packed.entries
    }
    window = make_job(frames=301).window
    model = FineGPT(MIDDLE).requires_grad_(False).eval()
    # Input tables and heads are rounded separately.
    for i, head in enumerate(model.lm_heads):
        model.transformer.wtes[i + 1].weight = torch.nn.Parameter(torch.empty_like(head.weight), requires_grad=False)
    model.load_state_dict(tensors)
    expected = model(torch.from_numpy(window.astype(np.int64))[None], 2)[0]
    actual = torch.from_numpy(cpu_refiner(MIDDLE, "int4", isa=isa).logits(window, 2))
    assert rms_error(actual, expected) < TOLERANCES["int8"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_drawn_codes_depend_on_the_seed_and_not_on_the_threads(dtype: str) -> None:
    def draw(threads: int, seed: int = 1) -> np.ndarray:
        job = make_job(5, 120, sampling=Sampling(1.0), seed=seed)
        return cpu_refiner(dtype=dtype, threads=threads).refine(job)

    first = draw(1)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(draw(threads), first)
    assert (draw(1, seed=2) != first).any()
    assert first[:, 2:].min() >= 0 and first[:, 2:].max() < N_IDS


@pytest.mark.parametrize("isa", isas())
def test_codes_are_drawn_with_the_random_numbers_that_are_reserved(isa: str) -> None:
    random = Randomness(2**63 + 7)
    random.reserve("fine", 1000)
    job = dataclasses.replace(make_job(3, 40, sampling=Sampling(0.7)), random=random)
    filled = cpu_refiner(isa=isa).refine(job)
    assert random.reserve("fine", 1)[1] == 1000 + job.window.size

    model, window = model_of(SMALL), torch.from_numpy(job.window.astype(np.int64))
    for codebook in (2, 3):
        logits = model(window[None], codebook)[0, 3:, :N_IDS]
        number = 1000 + codebook * 40 + torch.arange(3, 40)[:, None]
        seed = (2**63 + 7) & 0xFFFFFFFF, (2**63 + 7) >> 32
        noise = gumbel_noise_reference(*seed, STAGE_KEYS["fine"], number, torch.arange(N_IDS))
        window[3:, codebook] = (logits / 0.7 + noise).argmax(-1)
    np.testing.assert_array_equal(filled, window.numpy())


def test_a_second_window_is_drawn_with_other_numbers() -> None:
    random, refiner = Randomness(1), cpu_refiner()
    job = dataclasses.replace(make_job(sampling=Sampling(1.0)), random=random)
    assert (refiner.refine(job) != refiner.refine(job)).any()


def test_threads_that_share_a_refiner_take_turns() -> None:
    refiner, jobs = cpu_refiner(), [make_job(i, 90 + i) for i in range(8)]
    expected = [refiner.refine(job) for job in jobs]
    with ThreadPoolExecutor(4) as threads:
        for actual, filled in zip(threads.map(refiner.refine, jobs), expected, strict=True):
            np.testing.assert_array_equal(actual, filled)


def test_infinite_logits_are_an_error_and_the_next_window_is_fine() -> None:
    tensors = dict(fine_tensors(SMALL))
    # Finite weights whose products overflow.
    tensors["lm_heads.2.weight"] = tensors["lm_heads.2.weight"].clone()
    tensors["lm_heads.2.weight"][7] = 3e38
    refiner = cpu_refiner(tensors=tensors)
    with pytest.raises(EngineError, match="fine network's logits are not finite"):
        refiner.refine(make_job())
    job = dataclasses.replace(make_job(), codebook_size=7)
    np.testing.assert_array_equal(refiner.refine(job)[:, 2], torch_refiner().refine(job)[:, 2])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"window": make_job(frames=131).window}, "131 frames and 4 codebooks .* 130 positions"),
        ({"window": make_job().window[:, :3]}, "32 frames and 3 codebooks"),
        ({"window": make_job().window[:0]}, "0 frames"),
        ({"window": np.full((8, 4), 40, np.int32)}, "code 40 of frame 0"),
        ({"window": np.full((8, 4), -1, np.int32)}, "code -1 of frame 0"),
        ({"first_frame": 33}, "first frame 33"),
        ({"first_codebook": 0}, "codebook 0 cannot be predicted; expected 1 to 3"),
        ({"codebook_size": 41}, "41 ids"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cpu_refiner().refine(dataclasses.replace(make_job(), **changes))


def test_the_network_stays_on_the_cpu() -> None:
    refiner = cpu_refiner()
    refiner.to("cpu")
    with pytest.raises(EngineError, match="cannot move to cuda"):
        refiner.to("cuda")
