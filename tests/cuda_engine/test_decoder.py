"""Jobs on the GPU engine: the tests of every engine, and those for this engine alone."""

from typing import Any

import numpy as np
import pytest
import torch

from barkfast.errors import EngineError
from barkfast.jobs import Job
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.torch_ import TorchDecoder
from contract.decoding import DecoderContract, assert_same
from contract.networks import make_job
from cuda_engine.networks import CONFIG, DEVICE, cuda_decoder, gpt_tensors, mixed_jobs, torch_decoder

# More combinations on a GPU: in the interpreter a token takes a third of a second.
CASES = [(3, torch.float16), (16, torch.float32)]
CASES += [] if DEVICE.type == "cpu" else [(3, torch.float32), (3, torch.bfloat16), (16, torch.float16)]


@pytest.mark.sweep(1)
class TestDecoder(DecoderContract):
    """Up to 8 slots use matrix-vector products, more use matrix instructions."""

    config = CONFIG

    def make(self, **options: Any) -> CudaDecoder:
        return cuda_decoder(**options)

    def mixed_jobs(self) -> list[Job]:
        return mixed_jobs()

    def judge(self) -> TorchDecoder:
        return torch_decoder()

    @pytest.fixture(params=[1, 16], ids=["vector", "matrix"])
    def way(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"n_slots": request.param}

    @pytest.fixture
    def narrow(self) -> dict[str, Any]:
        return {"dtype": torch.float16}

    @pytest.fixture(params=CASES, ids=str)
    def batched(self, request: pytest.FixtureRequest) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        options = dict(zip(("n_slots", "dtype"), request.param, strict=True))
        return options, [options]


def test_few_slots_and_one_slot_give_the_same_tokens() -> None:
    one, many = (cuda_decoder(n_slots=n).run(mixed_jobs()[1:]) for n in (1, 8))
    assert_same(many, one)


@pytest.mark.parametrize("n_slots", [3, 5, 12])
def test_no_launch_has_more_rows_than_there_are_slots(n_slots: int) -> None:
    """Scratch memory has one row per slot, and kernels do not check its bounds."""
    from barkfast_kernels.launch import recording

    decoder = cuda_decoder(n_slots=n_slots)
    with recording() as launches:
        for i in range(n_slots):
            decoder.admit(make_job(i))
        decoder.launch(range(n_slots), 1)
    batches = {launch.args["batch"] for launch in launches if "batch" in launch.args}
    assert max(batches) == n_slots


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
    expected = torch_decoder(rounded).run(jobs)
    for n_slots in (1, 16):
        assert_same(cuda_decoder(n_slots=n_slots, int8=True).run(jobs), expected)


def test_an_admission_that_fails_leaves_its_slot_free(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = cuda_decoder()
    with monkeypatch.context() as patch:
        patch.setattr(decoder._prefill, "run", lambda length: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder.admit(make_job(1))
    np.testing.assert_array_equal(decoder.run([make_job(1)])[0], torch_decoder().run([make_job(1)])[0])


def test_other_slices_beside_running_jobs() -> None:
    decoder = cuda_decoder(n_slots=2)
    slot = decoder.admit(make_job(1))
    with pytest.raises(EngineError, match="cannot run beside"):
        decoder.admit(make_job(2, slices=((0, 30),)))
    decoder.release(slot)
    # run() runs such jobs one after the other.
    jobs = [make_job(1), make_job(2, slices=((0, 30),)), make_job(3)]
    assert_same(decoder.run(jobs), torch_decoder().run(jobs))


def test_everything_is_on_the_device() -> None:
    assert cuda_decoder().state.keys.device == DEVICE
